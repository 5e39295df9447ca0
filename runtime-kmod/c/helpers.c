// SPDX-License-Identifier: GPL-2.0-only
/*
 * The C half of the runtime: what needs kernel macros and inlines, and every wait.
 *
 * The rules of an operation are in the Rust half (src/machine.rs). Here: module init and exit, the kernel thread that
 * performs one operation, the files in /sys/kernel/lpbuild/NAME, the die notifier, and one small wrapper per kernel
 * function (src/binding/ffi.rs declares them).
 *
 * lpk_NAME: the kernel function NAME, which is not exported; lpk_ptr_NAME: the address of the kernel object NAME. Both
 * are defined by the patch object and are bound to one kernel build, so none is used before lpbuild_setup() has
 * compared the build id.
 */
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/kallsyms.h>
#include <linux/kdebug.h>
#include <linux/kernfs.h>
#include <linux/kobject.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nmi.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/version.h>
#include <asm/sync_core.h>

/*
 * What the rules rely on. On a real-time kernel the machine can stop while a task is in the middle of changing the task
 * list; without ORC a frame without unwind data is a guess and not an error; without RCU tasks synchronize_rcu_tasks()
 * is synchronize_rcu() (include/linux/rcupdate.h), which does not wait for preempted tasks.
 */
#ifdef CONFIG_PREEMPT_RT
#error "lpbuild: kernels with CONFIG_PREEMPT_RT are not supported"
#endif
#ifndef CONFIG_UNWINDER_ORC
#error "lpbuild: the kernel has no reliable stack traces, CONFIG_UNWINDER_ORC is not set"
#endif
#if defined(CONFIG_PREEMPTION) && !defined(CONFIG_TASKS_RCU)
#error "lpbuild: the kernel is preemptible but has no CONFIG_TASKS_RCU"
#endif

/* The Rust half returns through the kernel's return thunk. Where there is none, a return is a return. */
#if !defined(CONFIG_RETHUNK) && !defined(CONFIG_MITIGATION_RETHUNK)
asm(".pushsection .text, \"ax\"\n"
    ".globl __x86_return_thunk\n"
    ".type __x86_return_thunk, @function\n"
    "__x86_return_thunk:\n"
    "	ret\n"
    "	int3\n"
    ".size __x86_return_thunk, . - __x86_return_thunk\n"
    ".popsection");
#endif

/* As in src/binding/entry.rs. */
#define LPB_RCU_TASKS INT_MAX
#define LPB_CALL 0x40000000
enum { LPB_PRE_APPLY, LPB_POST_APPLY, LPB_PRE_REVERT, LPB_POST_REVERT };
enum { LPB_APPLYING, LPB_APPLIED, LPB_REVERTING, LPB_REVERTED, LPB_REFUSED };
enum { LPB_SHOW_STATE, LPB_SHOW_MODE, LPB_SHOW_FUNCTIONS, LPB_SHOW_BLOCKERS, LPB_SHOW_PAUSE, LPB_SHOW_ATTEMPTS,
       LPB_SHOW_LAST_ERROR, LPB_SHOW_VERSION, LPB_SHOW_DEADLINE, LPB_SHOW_ENABLED,
       LPB_SHOW_ONESHOT };

int lpbuild_setup(const char *name, size_t len);
int lpbuild_apply(void);
int lpbuild_revert(void);
void lpbuild_called(int callback, int value);
void lpbuild_force(void);
void lpbuild_publish(void);
void lpbuild_set_deadline(u32 ms);
u32 lpbuild_default_deadline(void);
void lpbuild_log_end(int result);
void lpbuild_released(void);
u64 lpbuild_divert(u64 ip);
size_t lpbuild_show_size(int what);
size_t lpbuild_show(int what, char *out, size_t len);
int lpbuild_state(void);
void lpbuild_show_reverting(void);
void lpbuild_cleanup(void);

/* Functions of the patch, or nothing, which returns 0: thunks of the patch object, so that no pointer is called. */
int lpbuild_call_pre_apply(void);
void lpbuild_call_post_apply(void);
void lpbuild_call_pre_revert(void);
void lpbuild_call_post_revert(void);

int lpk_stack_trace_save_tsk_reliable(struct task_struct *task, unsigned long *store, unsigned int size);
int lpk_stop_machine_cpuslocked(int (*fn)(void *), void *data, const struct cpumask *cpus);
struct task_struct *lpk_idle_task(int cpu);
void *lpk_get_kprobe(void *addr);
extern struct mutex *lpk_ptr_text_mutex;

/* Called from Rust only. */
int lpb_read(u64 addr, void *buf, size_t len);
int lpb_probe_at(u64 addr);
u64 lpb_now_ns(void);
size_t lpb_symbol(u64 addr, char *out, size_t len);
void lpb_log(int level, const char *line, size_t len);
u64 lpb_map(u64 addr, size_t len);
void lpb_unmap(u64 alias);
void lpb_sync_core(void);
void lpb_sync_core_all(void);
size_t lpb_online_cpus(void);
size_t lpb_possible_cpus(void);
size_t lpb_this_cpu(void);
size_t lpb_current(void);
int lpb_stop(int (*fn)(void *), void *data);
void lpb_relax(void);
void lpb_for_each_task(void (*fn)(void *, struct task_struct *), void *data);
size_t lpb_task_cpu(struct task_struct *task);
int lpb_is_operator(struct task_struct *task);
int lpb_stack(struct task_struct *task, u64 *frames, size_t len);
struct lpb_who {
	s32 pid;
	char comm[16];
};
void lpb_who(struct task_struct *task, struct lpb_who *who);
void *lpb_alloc(size_t size);
void lpb_free(void *memory);

static unsigned int deadline_ms;
module_param(deadline_ms, uint, 0444);
MODULE_PARM_DESC(deadline_ms, "milliseconds after which an operation that finds the functions busy gives up (0: as the patch says)");

/* Guards what the files show, and who may start an operation. */
static DEFINE_MUTEX(lpb_status);
/* The thread of the current or last operation; it stays until kthread_stop, so no code of it can be left behind. */
static struct task_struct *lpb_thread;
static DECLARE_COMPLETION(lpb_done);
static int lpb_result;
static bool lpb_notified;
/* Init is over: the module holds a reference on itself and may be reverted. */
static bool lpb_ready;
/* `rmmod -f`: a revert does not give up any more. */
static bool lpb_forced;

/* ---- wrappers ---- */

int lpb_read(u64 addr, void *buf, size_t len)
{
	return copy_from_kernel_nofault(buf, (void *)addr, len) == 0;
}

int lpb_probe_at(u64 addr)
{
	bool found;

	/* get_kprobe walks an RCU list: "This routine is called either with preemption disabled" (kernel/kprobes.c). */
	preempt_disable();
	found = lpk_get_kprobe((void *)addr) != NULL;
	preempt_enable();
	return found;
}

u64 lpb_now_ns(void)
{
	return ktime_get_mono_fast_ns();
}

size_t lpb_symbol(u64 addr, char *out, size_t len)
{
	/* Longer than any line, so not on the Rust side. */
	char text[KSYM_SYMBOL_LEN];
	size_t n;

	sprint_symbol(text, addr);
	if (text[0] == '0' && text[1] == 'x')
		return 0;
	n = min(strlen(text), len);
	memcpy(out, text, n);
	return n;
}

void lpb_log(int level, const char *line, size_t len)
{
	if (level <= LOGLEVEL_ERR)
		printk(KERN_ERR "%.*s\n", (int)len, line);
	else
		printk(KERN_INFO "%.*s\n", (int)len, line);
}

/* Kernel text is mapped read-only; this is a second, writable view of the one or two pages of a site. */
u64 lpb_map(u64 addr, size_t len)
{
	struct page *pages[2];
	unsigned int i, n = offset_in_page(addr) + len > PAGE_SIZE ? 2 : 1;
	void *view;

	for (i = 0; i < n; i++) {
		unsigned long page = (addr & PAGE_MASK) + i * PAGE_SIZE;

		if (page >= MODULES_VADDR && page < MODULES_END)
			pages[i] = vmalloc_to_page((void *)page);
		else if (page >= __START_KERNEL_map && page < MODULES_VADDR)
			pages[i] = virt_to_page((void *)page);
		else
			return 0;
		if (!pages[i])
			return 0;
	}
	view = vmap(pages, n, VM_MAP, PAGE_KERNEL);
	return view ? (u64)view + offset_in_page(addr) : 0;
}

void lpb_unmap(u64 alias)
{
	vunmap((void *)(alias & PAGE_MASK));
}

void lpb_sync_core(void)
{
	sync_core();
}

static void lpb_sync_one(void *unused)
{
	sync_core();
}

void lpb_sync_core_all(void)
{
	on_each_cpu(lpb_sync_one, NULL, 1);
}

size_t lpb_online_cpus(void)
{
	return num_online_cpus();
}

size_t lpb_possible_cpus(void)
{
	return nr_cpu_ids;
}

size_t lpb_this_cpu(void)
{
	return raw_smp_processor_id();
}

size_t lpb_current(void)
{
	return (size_t)current;
}

int lpb_stop(int (*fn)(void *), void *data)
{
	return lpk_stop_machine_cpuslocked(fn, data, cpu_online_mask);
}

void lpb_relax(void)
{
	touch_nmi_watchdog();
	cpu_relax();
}

void lpb_for_each_task(void (*fn)(void *, struct task_struct *), void *data)
{
	struct task_struct *group, *task;
	int cpu;

	for_each_process_thread(group, task)
		fn(data, task);
	/* Idle tasks are on no list. That of an offline CPU starts from its beginning when the CPU comes back. */
	for_each_online_cpu(cpu) {
		task = lpk_idle_task(cpu);
		if (task)
			fn(data, task);
	}
}

size_t lpb_task_cpu(struct task_struct *task)
{
	return task_cpu(task);
}

int lpb_is_operator(struct task_struct *task)
{
	return task == READ_ONCE(lpb_thread);
}

int lpb_stack(struct task_struct *task, u64 *frames, size_t len)
{
	touch_nmi_watchdog();
	return lpk_stack_trace_save_tsk_reliable(task, (unsigned long *)frames, len);
}

void lpb_who(struct task_struct *task, struct lpb_who *who)
{
	BUILD_BUG_ON(sizeof(who->comm) != TASK_COMM_LEN);
	who->pid = task_pid_nr(task);
	memcpy(who->comm, task->comm, sizeof(who->comm));
}

void *lpb_alloc(size_t size)
{
	return kvzalloc(size, GFP_KERNEL);
}

void lpb_free(void *memory)
{
	kvfree(memory);
}

/* ---- int3 ---- */

static int lpb_die(struct notifier_block *nb, unsigned long event, void *data)
{
	struct die_args *args = data;
	u64 to;

	if (event != DIE_INT3 || user_mode(args->regs))
		return NOTIFY_DONE;
	to = lpbuild_divert(args->regs->ip);
	if (!to)
		return NOTIFY_DONE;
	args->regs->ip = to;
	return NOTIFY_STOP;
}
NOKPROBE_SYMBOL(lpb_die);

static struct notifier_block lpb_notifier = { .notifier_call = lpb_die, .priority = INT_MAX };

/* ---- one operation, in a thread of its own ---- */

/* Without a lock, in process context: a callback may sleep. */
static int lpb_call(int callback)
{
	switch (callback) {
	case LPB_PRE_APPLY:
		return lpbuild_call_pre_apply();
	case LPB_POST_APPLY:
		lpbuild_call_post_apply();
		break;
	case LPB_PRE_REVERT:
		lpbuild_call_pre_revert();
		break;
	case LPB_POST_REVERT:
		lpbuild_call_post_revert();
		break;
	}
	return 0;
}

static int lpb_operate(bool revert)
{
	int step;

	for (;;) {
		/* Lock order of jump labels and kprobes (kernel/jump_label.c, kernel/kprobes.c). */
		cpus_read_lock();
		mutex_lock(lpk_ptr_text_mutex);
		step = revert ? lpbuild_revert() : lpbuild_apply();
		mutex_unlock(lpk_ptr_text_mutex);
		cpus_read_unlock();

		mutex_lock(&lpb_status);
		lpbuild_publish();
		mutex_unlock(&lpb_status);

		if (step <= 0)
			return step;
		if (step == LPB_RCU_TASKS)
			synchronize_rcu_tasks();
		else if (step >= LPB_CALL)
			lpbuild_called(step - LPB_CALL, lpb_call(step - LPB_CALL));
		else
			schedule_timeout_uninterruptible(msecs_to_jiffies(step));
	}
}

static int lpb_main(void *arg)
{
	bool revert = arg;
	int result = lpb_operate(revert);

	lpbuild_log_end(result);
	while (revert && result && READ_ONCE(lpb_forced)) {
		schedule_timeout_uninterruptible(HZ);
		result = lpb_operate(revert);
		if (!result)
			lpbuild_log_end(result);
	}
	if (revert && result == 0) {
		/* No site leads into the module and no task is inside: it may go. This thread waits for kthread_stop. */
		unregister_die_notifier(&lpb_notifier);
		lpb_notified = false;
		module_put(THIS_MODULE);
		mutex_lock(&lpb_status);
		lpbuild_released();
		lpbuild_publish();
		mutex_unlock(&lpb_status);
	}
	lpb_result = result;
	complete(&lpb_done);

	for (;;) {
		set_current_state(TASK_IDLE);
		if (kthread_should_stop())
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

/* Ends the thread of the last operation; returns when none of its code runs any more. */
static void lpb_end_thread(void)
{
	if (lpb_thread)
		kthread_stop(lpb_thread);
	lpb_thread = NULL;
}

static int lpb_start_thread(bool revert)
{
	struct task_struct *thread = kthread_create(lpb_main, (void *)revert, "lpbuild/%s", KBUILD_MODNAME);

	if (IS_ERR(thread))
		return PTR_ERR(thread);
	WRITE_ONCE(lpb_thread, thread);
	wake_up_process(thread);
	return 0;
}

/* ---- /sys/kernel/lpbuild/NAME ---- */

static struct kobject *lpb_parent, *lpb_folder;

static ssize_t lpb_show(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *out, loff_t off,
			size_t count)
{
	int what = (long)attr->private;
	size_t size = lpbuild_show_size(what), len;
	char *text = kvmalloc(size, GFP_KERNEL);
	ssize_t n;

	if (!text)
		return -ENOMEM;
	mutex_lock(&lpb_status);
	len = lpbuild_show(what, text, size);
	mutex_unlock(&lpb_status);
	n = memory_read_from_buffer(out, count, &off, text, len);
	kvfree(text);
	return n;
}

/* 0 starts the revert and returns at once; how it ended is in `state` and `last_error`. */
static ssize_t lpb_store_enabled(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *in,
				 loff_t off, size_t count)
{
	char text[8] = "";
	bool on;
	int err = 0;

	memcpy(text, in, min(count, sizeof(text) - 1));
	if (kstrtobool(text, &on) || on)
		return -EINVAL;

	mutex_lock(&lpb_status);
	switch (lpbuild_state()) {
	case LPB_APPLIED:
		if (!lpb_ready) {
			err = -EBUSY;
			break;
		}
		/* In this state it takes no lock any more, so waiting for it here is safe. */
		lpb_end_thread();
		lpbuild_show_reverting();
		err = lpb_start_thread(true);
		if (err)
			lpbuild_publish();
		break;
	case LPB_REVERTED:
		break;
	default:
		err = -EBUSY;
	}
	mutex_unlock(&lpb_status);
	return err ? err : count;
}

static ssize_t lpb_store_deadline(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *in,
				  loff_t off, size_t count)
{
	char text[16] = "";
	u32 ms;
	int err;

	memcpy(text, in, min(count, sizeof(text) - 1));
	err = kstrtou32(text, 10, &ms);
	if (err)
		return err;
	mutex_lock(&lpb_status);
	if (lpbuild_state() == LPB_APPLIED && lpb_ready) {
		/* A thread that has given up may still be reading what is changed here. It takes no lock in this state. */
		lpb_end_thread();
		lpbuild_set_deadline(ms);
	} else {
		err = -EBUSY;
	}
	mutex_unlock(&lpb_status);
	return err ? err : count;
}

/* Binary attributes, because a text attribute ends at one page and a list of functions does not. */
#define LPB_FILE(_name, _mode, _store, _what)						\
	static struct bin_attribute lpb_file_##_name = {				\
		.attr = { .name = #_name, .mode = _mode },				\
		.private = (void *)(long)_what,						\
		.read = lpb_show,							\
		.write = _store,							\
	}

LPB_FILE(state, 0444, NULL, LPB_SHOW_STATE);
LPB_FILE(mode, 0444, NULL, LPB_SHOW_MODE);
LPB_FILE(functions, 0444, NULL, LPB_SHOW_FUNCTIONS);
LPB_FILE(blockers, 0400, NULL, LPB_SHOW_BLOCKERS);
LPB_FILE(pause_ns, 0444, NULL, LPB_SHOW_PAUSE);
LPB_FILE(attempts, 0444, NULL, LPB_SHOW_ATTEMPTS);
LPB_FILE(last_error, 0444, NULL, LPB_SHOW_LAST_ERROR);
LPB_FILE(version, 0444, NULL, LPB_SHOW_VERSION);
LPB_FILE(deadline_ms, 0644, lpb_store_deadline, LPB_SHOW_DEADLINE);
LPB_FILE(enabled, 0644, lpb_store_enabled, LPB_SHOW_ENABLED);
LPB_FILE(oneshot, 0444, NULL, LPB_SHOW_ONESHOT);

static struct bin_attribute *lpb_files[] = {
	&lpb_file_state, &lpb_file_mode, &lpb_file_functions, &lpb_file_blockers, &lpb_file_pause_ns,
	&lpb_file_attempts, &lpb_file_last_error, &lpb_file_version, &lpb_file_deadline_ms, &lpb_file_enabled,
	&lpb_file_oneshot, NULL,
};

static const struct attribute_group lpb_group = { .bin_attrs = lpb_files };

/*
 * The folder `lpbuild` belongs to all patches together: the first makes it, every one holds a reference, the last
 * one's drop removes it. text_mutex is the one lock they all know, so it orders finding against dropping.
 */
static struct kobject *lpb_find_parent(void)
{
	struct kernfs_node *node = kernfs_find_and_get(kernel_kobj->sd, "lpbuild");
	struct kobject *parent;

	if (!node)
		return kobject_create_and_add("lpbuild", kernel_kobj);
	parent = kobject_get_unless_zero(node->priv);
	kernfs_put(node);
	return parent;
}

static int lpb_add_folder(void)
{
	mutex_lock(lpk_ptr_text_mutex);
	lpb_parent = lpb_find_parent();
	if (lpb_parent)
		lpb_folder = kobject_create_and_add(KBUILD_MODNAME, lpb_parent);
	mutex_unlock(lpk_ptr_text_mutex);
	return lpb_folder ? sysfs_create_group(lpb_folder, &lpb_group) : -ENOMEM;
}

static void lpb_remove_folder(void)
{
	if (!lpb_parent)
		return;
	/* Waits for readers and writers; none is inside this module afterwards. */
	if (lpb_folder)
		sysfs_remove_group(lpb_folder, &lpb_group);
	mutex_lock(lpk_ptr_text_mutex);
	kobject_put(lpb_folder);
	kobject_put(lpb_parent);
	lpb_folder = lpb_parent = NULL;
	mutex_unlock(lpk_ptr_text_mutex);
}

/* ---- module ---- */

static void lpb_undo(void)
{
	lpb_remove_folder();
	lpb_end_thread();
	if (lpb_notified)
		unregister_die_notifier(&lpb_notifier);
	lpbuild_cleanup();
}

static int __init lpb_init(void)
{
	int err = lpbuild_setup(KBUILD_MODNAME, strlen(KBUILD_MODNAME));

	if (err) {
		lpbuild_cleanup();
		return err;
	}
	lpbuild_set_deadline(deadline_ms ?: lpbuild_default_deadline());
	err = lpb_add_folder();
	if (!err)
		err = register_die_notifier(&lpb_notifier);
	if (!err) {
		lpb_notified = true;
		err = lpb_start_thread(false);
	}
	if (err) {
		pr_err("lpbuild: %s: LP5011: folder, notifier or thread cannot be made (%d)\n", KBUILD_MODNAME, err);
		goto undo;
	}
	/* In turns, so that a long deadline does not look like a hung task. */
	while (!wait_for_completion_timeout(&lpb_done, 10 * HZ))
		;
	lpb_end_thread();
	err = lpb_result;
	if (err)
		goto undo;
	/* From here on the module stays until it is reverted; lpb_main drops this. */
	__module_get(THIS_MODULE);
	mutex_lock(&lpb_status);
	lpb_ready = true;
	mutex_unlock(&lpb_status);
	return 0;
undo:
	lpb_undo();
	return err;
}

/*
 * `rmmod -f` does not ask for references (try_stop_module, kernel/module/main.c): it comes here with the patch applied
 * or being reverted, and frees the module when this returns. So this returns when the patch is out, however long that
 * takes. Called without the files, so that nobody else starts a thread.
 */
static void lpb_revert_before_exit(void)
{
	WRITE_ONCE(lpb_forced, true);
	/* An operation that is under way ends first; a revert now has no deadline. */
	lpb_end_thread();
	if (!lpb_notified)
		return;
	pr_err("lpbuild: %s: removed by force while applied, reverting it first\n", KBUILD_MODNAME);
	lpbuild_force();
	reinit_completion(&lpb_done);
	while (lpb_start_thread(true))
		schedule_timeout_uninterruptible(HZ);
	/* A thread that is ended before it has begun would do nothing. */
	while (!wait_for_completion_timeout(&lpb_done, 10 * HZ))
		;
}

static void __exit lpb_exit(void)
{
	lpb_remove_folder();
	lpb_revert_before_exit();
	lpb_undo();
}

module_init(lpb_init);
module_exit(lpb_exit);
