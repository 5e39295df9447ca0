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
#include <linux/ftrace.h>
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
#include <linux/smp.h>
#include <linux/sysfs.h>
#include <linux/task_work.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/version.h>
#include <asm/linkage.h>
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

#ifndef CONFIG_SMP
#error "lpbuild: kernels without CONFIG_SMP are not supported"
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
#define LPB_EFFECTIVE (INT_MAX - 1)
#define LPB_LET_GO (INT_MAX - 2)
#define LPB_CALL 0x40000000
enum { LPB_PRE_APPLY, LPB_POST_APPLY, LPB_PRE_REVERT, LPB_POST_REVERT };
enum { LPB_APPLYING, LPB_APPLIED, LPB_REVERTING, LPB_REVERTED, LPB_REFUSED, LPB_DRAINING, LPB_CHECKED, LPB_REPLACED };
enum { LPB_SHOW_STATE, LPB_SHOW_MODE, LPB_SHOW_FUNCTIONS, LPB_SHOW_BLOCKERS, LPB_SHOW_PAUSE, LPB_SHOW_ATTEMPTS,
       LPB_SHOW_LAST_ERROR, LPB_SHOW_VERSION, LPB_SHOW_DEADLINE, LPB_SHOW_ENABLED,
       LPB_SHOW_ONESHOT, LPB_SHOW_SWITCHED, LPB_SHOW_FORCE, LPB_SHOW_ABI, LPB_SHOW_AFTER, LPB_SHOW_REPLACES };
/* What a look at a task finds, and how it ends. */
#define LPB_BLOCKED 1
#define LPB_KERNEL 2
enum { LPB_LOOKED, LPB_RUNNING, LPB_DEAD, LPB_OFFLINE };

int lpbuild_setup(const char *name, size_t len);
int lpbuild_apply(void);
int lpbuild_revert(void);
int lpbuild_rehearse(void);
void lpbuild_begin(void);
int lpbuild_pokes(void);
void lpbuild_called(int callback, int value);
void lpbuild_force_revert(void);
void lpbuild_force_switch(void);
void lpbuild_cancel(void);
bool lpbuild_chooses(struct task_struct *task);
void lpbuild_boundary(struct callback_head *work, const unsigned long *frames, int n);
void lpbuild_publish(void);
void lpbuild_set_deadline(u32 ms);
void lpbuild_set_oneshot(void);
int lpbuild_set_mode(const char *name, size_t len);
void lpbuild_log_end(int result);
void lpbuild_released(void);
u64 lpbuild_divert(u64 ip);
size_t lpbuild_show_size(int what);
size_t lpbuild_show(int what, char *out, size_t len);
int lpbuild_state(void);
void lpbuild_replaced_others(void);
void lpbuild_replaced(void);
void lpbuild_refuse_on_top(void);
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
int lpk_task_call_func(struct task_struct *task, int (*fn)(struct task_struct *task, void *arg), void *arg);
int lpk_task_work_add(struct task_struct *task, struct callback_head *work, enum task_work_notify_mode mode);
struct callback_head *lpk_task_work_cancel_match(struct task_struct *task,
						 bool (*match)(struct callback_head *work, void *data), void *data);
int lpk_wake_up_state(struct task_struct *task, unsigned int state);
#ifdef CONFIG_DYNAMIC_FTRACE
int lpk_ftrace_ops_test(struct ftrace_ops *ops, unsigned long ip, void *regs);
extern struct ftrace_ops **lpk_ptr_ftrace_ops_list;
#endif
extern struct mutex *lpk_ptr_text_mutex;
extern rwlock_t *lpk_ptr_tasklist_lock;

/* Called from Rust only. */
int lpb_read(u64 addr, void *buf, size_t len);
int lpb_probe_at(u64 addr);
int lpb_is_redirected(u64 addr);
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
size_t lpb_count_tasks(void);
void lpb_census(void (*fn)(void *, struct task_struct *), void *data, void (*last)(void *), void *last_data);
void lpb_hold(struct task_struct *task);
void lpb_release(struct task_struct *task);
int lpb_look(struct task_struct *task, u64 *frames, size_t len, void (*fn)(void *, const u64 *, int, int, u64),
	     void *data);
int lpb_send(struct task_struct *task, struct callback_head *work, int urgent);
int lpb_recall(struct task_struct *task, struct callback_head *work);
void lpb_nudge(struct task_struct *task);
void lpb_breathe(void);

/* What a patch shows to others, filled by the Rust half (src/binding/entry.rs). */
struct lpb_info {
	u64 magic;
	u32 abi;
	u64 runtime;
	const void *sites;
	size_t n_sites;
	const void *board;
	const void *record;
};
void lpbuild_describe(struct lpb_info *info);
int lpb_take_other(const char *name, size_t len, int replaces, struct lpb_info **info);

/* Called from dispatchers. */
bool lpb_choose(void);

static char *mode;
module_param(mode, charp, 0444);
MODULE_PARM_DESC(mode, "stop-machine, drain or transition (default: as the patch says)");
static bool oneshot;
module_param(oneshot, bool, 0444);
MODULE_PARM_DESC(oneshot, "the patch stays until the next boot");
static bool dry_run;
module_param(dry_run, bool, 0444);
MODULE_PARM_DESC(dry_run, "check everything, apply nothing; what was found is in /sys/kernel/lpbuild/NAME");
static unsigned int deadline_ms;
module_param(deadline_ms, uint, 0444);
MODULE_PARM_DESC(deadline_ms, "milliseconds after which an operation that finds the functions busy gives up (0: as the patch says)");

static unsigned int fail_call;
module_param(fail_call, uint, 0444);
MODULE_PARM_DESC(fail_call, "for tests: the call of this number, among those that can fail, fails (0: none)");

/* Guards what the files show, and who may start an operation. */
static DEFINE_MUTEX(lpb_status);
/* Performs all operations, from init to exit. */
static struct task_struct *lpb_thread;
/* What it shall do next: bits of lpb_requests. */
enum { LPB_APPLY, LPB_REVERT, LPB_REHEARSE };
static unsigned long lpb_requests;
/* The first operation is over, or has come so far that the module stays. */
static DECLARE_COMPLETION(lpb_begun);
/* Nothing leads into the module any more. */
static DECLARE_COMPLETION(lpb_out);
static int lpb_result;
static bool lpb_notified;
/* The module holds a reference on itself, and may be reverted. */
static bool lpb_stays;
/* `rmmod -f`: a revert does not give up any more. */
static bool lpb_forced;

/* Whether this call is the one that a test wants to fail. Stands before every call that can. */
static bool lpb_fails(const char *what)
{
	static atomic_t calls;

	if (!fail_call || atomic_inc_return(&calls) != fail_call)
		return false;
	pr_info("lpbuild: %s: call %u made to fail: %s\n", KBUILD_MODNAME, fail_call, what);
	return true;
}

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

/* Whether an ftrace user that may change the instruction pointer has the function at `addr`. */
int lpb_is_redirected(u64 addr)
{
	int found = 0;
#ifdef CONFIG_DYNAMIC_FTRACE
	struct ftrace_ops *ops;
	bool kprobe;

	if (!lpk_ptr_ftrace_ops_list)
		return 0;
	/* The call is the function's first instruction, or its second behind ENDBR. A kprobe there may be one of ftrace's. */
	kprobe = lpb_probe_at(addr) || lpb_probe_at(addr + 4);
	/* As do_for_each_ftrace_op (kernel/trace/ftrace_internal.h); the list ends with one that has no next. */
	preempt_disable();
	for (ops = READ_ONCE(*lpk_ptr_ftrace_ops_list); ops; ops = READ_ONCE(ops->next)) {
		/* With SAVE_REGS it is only said to have the function when there are registers; they are not looked at. */
		void *regs = kprobe ? NULL : ops;

		if (ops->flags & FTRACE_OPS_FL_IPMODIFY &&
		    (lpk_ftrace_ops_test(ops, addr, regs) || lpk_ftrace_ops_test(ops, addr + 4, regs)))
			found = 1;
	}
	preempt_enable();
#endif
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
	view = lpb_fails("vmap") ? NULL : vmap(pages, n, VM_MAP, PAGE_KERNEL);
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
	if (lpb_fails("stop_machine"))
		return -ENOMEM;
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
	return lpb_fails("kvzalloc") ? NULL : kvzalloc(size, GFP_KERNEL);
}

void lpb_free(void *memory)
{
	kvfree(memory);
}

size_t lpb_count_tasks(void)
{
	struct task_struct *group, *task;
	size_t n = nr_cpu_ids;

	rcu_read_lock();
	for_each_process_thread(group, task)
		n++;
	rcu_read_unlock();
	return n;
}

/* A task is put on the list under this lock held for writing, and runs for the first time after it (copy_process). */
void lpb_census(void (*fn)(void *, struct task_struct *), void *data, void (*last)(void *), void *last_data)
{
	struct task_struct *group, *task;
	int cpu;

	read_lock(lpk_ptr_tasklist_lock);
	for_each_process_thread(group, task)
		fn(data, task);
	for_each_possible_cpu(cpu) {
		task = lpk_idle_task(cpu);
		if (task)
			fn(data, task);
	}
	last(last_data);
	read_unlock(lpk_ptr_tasklist_lock);
}

void lpb_hold(struct task_struct *task)
{
	get_task_struct(task);
}

void lpb_release(struct task_struct *task)
{
	put_task_struct(task);
}

struct lpb_look {
	struct task_struct *task;
	u64 *frames;
	size_t len;
	void (*fn)(void *data, const u64 *frames, int n, int flags, u64 switches);
	void *data;
	int seen;
};

static void lpb_look_at(struct lpb_look *look, struct task_struct *task, int flags)
{
	int n = lpk_stack_trace_save_tsk_reliable(task, (unsigned long *)look->frames, look->len);

	if (task->flags & PF_KTHREAD)
		flags |= LPB_KERNEL;
	/* It is in the idle loop whenever it is not in an interrupt. */
	if (is_idle_task(task))
		flags |= LPB_BLOCKED;
	look->fn(look->data, look->frames, n, flags, task->nvcsw + task->nivcsw);
	look->seen = LPB_LOOKED;
}

/* With the locks that keep the task from running, if it is not (task_call_func, kernel/sched/core.c). */
static int lpb_look_locked(struct task_struct *task, void *arg)
{
	struct lpb_look *look = arg;

	if (READ_ONCE(task->on_cpu))
		look->seen = LPB_RUNNING;
	else if (READ_ONCE(task->__state) & TASK_DEAD)
		look->seen = LPB_DEAD;
	else
		lpb_look_at(look, task, READ_ONCE(task->__state) == TASK_RUNNING ? 0 : LPB_BLOCKED);
	return 0;
}

static void lpb_look_interrupt(void *arg)
{
	struct lpb_look *look = arg;

	if (current == look->task)
		lpb_look_at(look, current, 0);
}

int lpb_look(struct task_struct *task, u64 *frames, size_t len, void (*fn)(void *, const u64 *, int, int, u64),
	     void *data)
{
	struct lpb_look look = { .task = task, .frames = frames, .len = len, .fn = fn, .data = data };
	int i, cpu;

	for (i = 0; i < 3; i++) {
		lpk_task_call_func(task, lpb_look_locked, &look);
		if (look.seen != LPB_RUNNING)
			break;
		/* The hotplug lock is held, so what is offline stays so. */
		cpu = task_cpu(task);
		if (!cpu_online(cpu)) {
			if (is_idle_task(task))
				look.seen = LPB_OFFLINE;
			break;
		}
		if (!lpb_fails("smp_call_function_single"))
			smp_call_function_single(cpu, lpb_look_interrupt, &look, 1);
		if (look.seen != LPB_RUNNING)
			break;
	}
	return look.seen;
}

/* The deepest stack that a task may have on its way back to user mode. */
#define LPB_SHALLOW 64

static void lpb_boundary(struct callback_head *work)
{
	unsigned long frames[LPB_SHALLOW];
	int n = -ESRCH;

	/* An exiting task is not on its way back. */
	if (!(current->flags & PF_EXITING))
		n = lpk_stack_trace_save_tsk_reliable(current, frames, LPB_SHALLOW);
	lpbuild_boundary(work, frames, n);
}

int lpb_send(struct task_struct *task, struct callback_head *work, int urgent)
{
	/* A thread has no boundary, and would keep the signal. */
	if (task->flags & PF_KTHREAD)
		return -ESRCH;
	init_task_work(work, lpb_boundary);
	if (lpb_fails("task_work_add"))
		return -ESRCH;
	return lpk_task_work_add(task, work, urgent ? TWA_SIGNAL : TWA_RESUME);
}

static bool lpb_is_work(struct callback_head *work, void *which)
{
	return work == which;
}

int lpb_recall(struct task_struct *task, struct callback_head *work)
{
	return lpk_task_work_cancel_match(task, lpb_is_work, work) != NULL;
}

void lpb_nudge(struct task_struct *task)
{
	lpk_wake_up_state(task, TASK_INTERRUPTIBLE);
}

void lpb_breathe(void)
{
	cond_resched();
}

/* ---- dispatchers ---- */

notrace bool lpb_choose(void)
{
	return lpbuild_chooses(current);
}
NOKPROBE_SYMBOL(lpb_choose);

/*
 * What a dispatcher calls at the entry of a replaced function: every register that may hold an argument is kept. The zero
 * flag is clear when the new function is to be run.
 */
asm(".pushsection .text, \"ax\"\n"
    ".skip 16, 0x90\n"
    ".balign 16, 0x90\n"
    ".globl lpbuild_chooses_new\n"
    ".type lpbuild_chooses_new, @function\n"
    "lpbuild_chooses_new:\n"
    "	push %rax\n"
    "	push %rcx\n"
    "	push %rdx\n"
    "	push %rsi\n"
    "	push %rdi\n"
    "	push %r8\n"
    "	push %r9\n"
    "	push %r10\n"
    "	push %r11\n"
    "	call lpb_choose\n"
    "	test %al, %al\n"
    "	pop %r11\n"
    "	pop %r10\n"
    "	pop %r9\n"
    "	pop %r8\n"
    "	pop %rdi\n"
    "	pop %rsi\n"
    "	pop %rdx\n"
    "	pop %rcx\n"
    "	pop %rax\n"
    "	" ASM_RET
    ".size lpbuild_chooses_new, . - lpbuild_chooses_new\n"
    ".popsection");

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

static void lpb_publish(void)
{
	mutex_lock(&lpb_status);
	lpbuild_publish();
	mutex_unlock(&lpb_status);
}

/* Init is over: the module stays until it is out. */
static void lpb_stay(void)
{
	__module_get(THIS_MODULE);
	mutex_lock(&lpb_status);
	lpbuild_publish();
	lpb_stays = true;
	mutex_unlock(&lpb_status);
	lpb_result = 0;
	complete(&lpb_begun);
}

static void lpb_release_others(void);

/* No site leads into the module and no task is inside: it may go. This thread waits for kthread_stop. */
static void lpb_leave(void)
{
	unregister_die_notifier(&lpb_notifier);
	lpb_notified = false;
	lpb_release_others();
	mutex_lock(&lpb_status);
	lpb_stays = false;
	lpbuild_released();
	lpbuild_publish();
	mutex_unlock(&lpb_status);
	module_put(THIS_MODULE);
	complete_all(&lpb_out);
}

static void lpb_let_replaced_go(void);

static int lpb_operate(bool revert)
{
	bool pokes;
	int step;

	lpbuild_begin();
	for (;;) {
		/* Lock order of jump labels and kprobes (kernel/jump_label.c, kernel/kprobes.c). */
		cpus_read_lock();
		pokes = lpbuild_pokes();
		if (pokes)
			mutex_lock(lpk_ptr_text_mutex);
		step = revert ? lpbuild_revert() : lpbuild_apply();
		if (pokes)
			mutex_unlock(lpk_ptr_text_mutex);
		cpus_read_unlock();
		lpb_publish();

		if (step <= 0)
			return step;
		if (step == LPB_RCU_TASKS)
			synchronize_rcu_tasks();
		else if (step == LPB_LET_GO) {
			/* Sites first: what they were copied from goes. */
			lpbuild_replaced_others();
			lpb_let_replaced_go();
		} else if (step == LPB_EFFECTIVE) {
			lpbuild_log_end(0);
			lpb_stay();
		}
		else if (step >= LPB_CALL)
			lpbuild_called(step - LPB_CALL, lpb_call(step - LPB_CALL));
		else
			schedule_timeout_uninterruptible(msecs_to_jiffies(step));
	}
}

static void lpb_apply(void)
{
	int result = lpb_operate(false);

	lpbuild_log_end(result);
	if (result == 0 && !lpb_stays) {
		lpb_stay();
	} else if (result && lpb_stays) {
		lpb_leave();
	} else if (result) {
		lpb_result = result;
		complete(&lpb_begun);
	}
}

static bool lpb_is_taken(void);

/* Whether a revert that was asked for may begin now. Another patch may have come since. */
static bool lpb_may_revert(void)
{
	bool gone, taken;

	for (;;) {
		mutex_lock(&lpb_status);
		gone = !lpb_stays;
		taken = !gone && lpb_is_taken();
		if (!gone && !taken)
			lpbuild_show_reverting();
		mutex_unlock(&lpb_status);
		if (gone || !taken)
			return !gone;
		if (!READ_ONCE(lpb_forced))
			return false;
		schedule_timeout_uninterruptible(HZ);
	}
}

static void lpb_revert(void)
{
	int result;

	if (!lpb_may_revert())
		return;

	if (READ_ONCE(lpb_forced))
		lpbuild_force_revert();
	result = lpb_operate(true);
	lpbuild_log_end(result);
	while (result && READ_ONCE(lpb_forced)) {
		schedule_timeout_uninterruptible(HZ);
		if (!lpb_may_revert())
			return;
		lpbuild_force_revert();
		result = lpb_operate(true);
		if (!result)
			lpbuild_log_end(result);
	}
	if (result == 0)
		lpb_leave();
}

static void lpb_rehearse(void)
{
	lpbuild_begin();
	cpus_read_lock();
	mutex_lock(lpk_ptr_text_mutex);
	lpbuild_rehearse();
	mutex_unlock(lpk_ptr_text_mutex);
	cpus_read_unlock();
	lpb_publish();
	/* Nothing is going to happen to them. */
	lpb_release_others();
	complete(&lpb_begun);
}

static int lpb_main(void *unused)
{
	for (;;) {
		set_current_state(TASK_IDLE);
		if (test_and_clear_bit(LPB_APPLY, &lpb_requests)) {
			__set_current_state(TASK_RUNNING);
			lpb_apply();
		} else if (test_and_clear_bit(LPB_REHEARSE, &lpb_requests)) {
			__set_current_state(TASK_RUNNING);
			lpb_rehearse();
		} else if (test_and_clear_bit(LPB_REVERT, &lpb_requests)) {
			__set_current_state(TASK_RUNNING);
			lpb_revert();
		} else if (kthread_should_stop()) {
			break;
		} else {
			schedule();
		}
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

static void lpb_request(int what)
{
	set_bit(what, &lpb_requests);
	wake_up_process(lpb_thread);
}

/* Returns when no code of the thread runs any more. */
static void lpb_end_thread(void)
{
	if (lpb_thread)
		kthread_stop(lpb_thread);
	lpb_thread = NULL;
}

static int lpb_start_thread(void)
{
	struct task_struct *thread = ERR_PTR(-ENOMEM);

	if (!lpb_fails("kthread_create"))
		thread = kthread_create(lpb_main, NULL, "lpbuild/%s", KBUILD_MODNAME);
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	WRITE_ONCE(lpb_thread, thread);
	return 0;
}

/* ---- /sys/kernel/lpbuild/NAME ---- */

static struct kobject *lpb_parent, *lpb_folder;

static ssize_t lpb_show(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *out, loff_t off,
			size_t count)
{
	int what = (long)attr->private;
	size_t size = lpbuild_show_size(what), len;
	char *text = lpb_fails("kvmalloc") ? NULL : kvmalloc(size, GFP_KERNEL);
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

/* 0 starts the revert, or turns an apply round, and returns at once; how it ended is in `state` and `last_error`. */
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
	if (lpb_is_taken()) {
		mutex_unlock(&lpb_status);
		return -EBUSY;
	}
	switch (lpbuild_state()) {
	case LPB_APPLYING:
		/* If it is too late to turn round, the revert follows. */
	case LPB_DRAINING:
		lpbuild_cancel();
		lpb_request(LPB_REVERT);
		break;
	case LPB_APPLIED:
		if (!lpb_stays) {
			err = -EBUSY;
			break;
		}
		lpbuild_show_reverting();
		lpb_request(LPB_REVERT);
		break;
	case LPB_REVERTING:
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
	lpbuild_set_deadline(ms);
	return count;
}

/* The mode of the revert. */
static ssize_t lpb_store_mode(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *in,
			      loff_t off, size_t count)
{
	int err = lpbuild_set_mode(in, count);

	return err ? err : count;
}

/* Tasks that have not been switched are, although they are inside: they may run both versions. */
static ssize_t lpb_store_force(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *in,
			       loff_t off, size_t count)
{
	char text[8] = "";
	bool on;

	memcpy(text, in, min(count, sizeof(text) - 1));
	if (kstrtobool(text, &on) || !on)
		return -EINVAL;
	lpbuild_force_switch();
	return count;
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
LPB_FILE(mode, 0644, lpb_store_mode, LPB_SHOW_MODE);
LPB_FILE(functions, 0444, NULL, LPB_SHOW_FUNCTIONS);
LPB_FILE(blockers, 0400, NULL, LPB_SHOW_BLOCKERS);
LPB_FILE(pause_ns, 0444, NULL, LPB_SHOW_PAUSE);
LPB_FILE(attempts, 0444, NULL, LPB_SHOW_ATTEMPTS);
LPB_FILE(last_error, 0444, NULL, LPB_SHOW_LAST_ERROR);
LPB_FILE(version, 0444, NULL, LPB_SHOW_VERSION);
LPB_FILE(deadline_ms, 0644, lpb_store_deadline, LPB_SHOW_DEADLINE);
LPB_FILE(enabled, 0644, lpb_store_enabled, LPB_SHOW_ENABLED);
LPB_FILE(oneshot, 0444, NULL, LPB_SHOW_ONESHOT);
LPB_FILE(switched, 0444, NULL, LPB_SHOW_SWITCHED);
LPB_FILE(force, 0644, lpb_store_force, LPB_SHOW_FORCE);
LPB_FILE(after, 0444, NULL, LPB_SHOW_AFTER);
LPB_FILE(replaces, 0444, NULL, LPB_SHOW_REPLACES);


/*
 * Patches find each other by the file `abi` in each other's folders: it is the first field of this. Another runtime may
 * have anything behind the version.
 */
struct lpb_peer {
	struct bin_attribute file;
	struct lpb_info info;
	struct module *owner;
	/* Guards what is below, and the state. */
	struct mutex *lock;
	bool (*is_applied)(void);
	/* Another patch has taken the place of this one, and nobody is inside. */
	void (*leave)(void);
	/* Patches that lie on this one. */
	unsigned int on_top;
	/* One is taking its place. */
	bool taken;
};

static void lpb_leave_replaced(void);

static bool lpb_is_applied(void)
{
	return lpb_stays && lpbuild_state() == LPB_APPLIED;
}

static struct lpb_peer lpb_me = {
	.file = {
		.attr = { .name = "abi", .mode = 0444 },
		.private = (void *)(long)LPB_SHOW_ABI,
		.read = lpb_show,
	},
	.owner = THIS_MODULE,
	.lock = &lpb_status,
	.is_applied = lpb_is_applied,
	.leave = lpb_leave_replaced,
};

static struct bin_attribute *lpb_files[] = {
	&lpb_file_state, &lpb_file_mode, &lpb_file_functions, &lpb_file_blockers, &lpb_file_pause_ns,
	&lpb_file_attempts, &lpb_file_last_error, &lpb_file_version, &lpb_file_deadline_ms, &lpb_file_enabled,
	&lpb_file_oneshot, &lpb_file_switched, &lpb_file_force, &lpb_file_after,
	&lpb_file_replaces, &lpb_me.file, NULL,
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
	if (!lpb_fails("kobject_create_and_add"))
		lpb_parent = lpb_find_parent();
	if (lpb_parent && !lpb_fails("kobject_create_and_add"))
		lpb_folder = kobject_create_and_add(KBUILD_MODNAME, lpb_parent);
	mutex_unlock(lpk_ptr_text_mutex);
	if (!lpb_folder || lpb_fails("sysfs_create_group"))
		return -ENOMEM;
	return sysfs_create_group(lpb_folder, &lpb_group);
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

/* ---- other patches ---- */

/* As many as a patch can name (MAX_OTHERS in src/record.rs). */
#define LPB_OTHERS 32

static struct lpb_other {
	struct lpb_peer *peer;
	bool replaces;
} lpb_others[LPB_OTHERS];
static unsigned int lpb_n_others;

/* Under lpb_status. Says why in `last_error`. */
static bool lpb_is_taken(void)
{
	if (!lpb_me.on_top && !lpb_me.taken)
		return false;
	lpbuild_refuse_on_top();
	return true;
}

/* A module cannot get past lpb_remove_folder while text_mutex is held, so what is found here is still there. */
static struct lpb_peer *lpb_find_peer(const char *name)
{
	struct kernfs_node *parent, *folder = NULL, *file = NULL;
	struct lpb_peer *peer = NULL;

	parent = kernfs_find_and_get(kernel_kobj->sd, "lpbuild");
	if (parent)
		folder = kernfs_find_and_get(parent, name);
	if (folder)
		file = kernfs_find_and_get(folder, "abi");
	if (file)
		peer = container_of((struct bin_attribute *)file->priv, struct lpb_peer, file);
	kernfs_put(file);
	kernfs_put(folder);
	kernfs_put(parent);
	return peer;
}

/* Takes hold of an applied patch: 0, or 1 there is none, 2 it has another runtime. Given back by lpb_release_others. */
int lpb_take_other(const char *name, size_t len, int replaces, struct lpb_info **info)
{
	char text[MODULE_NAME_LEN] = "";
	struct lpb_peer *peer;
	int err = 0;

	memcpy(text, name, min(len, sizeof(text) - 1));
	mutex_lock(lpk_ptr_text_mutex);
	peer = lpb_find_peer(text);
	if (!peer || peer == &lpb_me)
		err = 1;
	else if (peer->info.magic != lpb_me.info.magic || peer->info.abi != lpb_me.info.abi ||
		 peer->info.runtime != lpb_me.info.runtime)
		err = 2;
	else if (lpb_n_others == LPB_OTHERS || lpb_fails("try_module_get") || !try_module_get(peer->owner))
		err = 1;
	if (err)
		goto unlock;

	/* One that is applied is over its init, which cannot take it away any more. */
	mutex_lock(peer->lock);
	if (!peer->is_applied() || peer->taken || (replaces && peer->on_top))
		err = 1;
	else if (replaces)
		peer->taken = true;
	else
		peer->on_top++;
	mutex_unlock(peer->lock);
	if (err)
		module_put(peer->owner);
unlock:
	mutex_unlock(lpk_ptr_text_mutex);
	if (err)
		return err;
	lpb_others[lpb_n_others].peer = peer;
	lpb_others[lpb_n_others++].replaces = replaces;
	*info = &peer->info;
	return 0;
}

static void lpb_release_others(void)
{
	while (lpb_n_others) {
		struct lpb_other *other = &lpb_others[--lpb_n_others];

		mutex_lock(other->peer->lock);
		if (other->replaces)
			other->peer->taken = false;
		else
			other->peer->on_top--;
		mutex_unlock(other->peer->lock);
		module_put(other->peer->owner);
	}
}

/* Those whose place was taken go, the others stay below. */
static void lpb_let_replaced_go(void)
{
	unsigned int i, kept = 0;

	for (i = 0; i < lpb_n_others; i++) {
		struct lpb_peer *peer = lpb_others[i].peer;

		if (!lpb_others[i].replaces) {
			lpb_others[kept++] = lpb_others[i];
			continue;
		}
		peer->leave();
		module_put(peer->owner);
	}
	lpb_n_others = kept;
}

/* Called by the thread of the patch that takes this one's place, which holds a reference on this module. */
static void lpb_leave_replaced(void)
{
	unregister_die_notifier(&lpb_notifier);
	lpb_notified = false;
	mutex_lock(&lpb_status);
	lpb_stays = false;
	lpb_me.taken = false;
	lpbuild_replaced();
	lpbuild_publish();
	mutex_unlock(&lpb_status);
	lpb_release_others();
	module_put(THIS_MODULE);
	complete_all(&lpb_out);
}

/* ---- module ---- */

static void lpb_undo(void)
{
	lpb_remove_folder();
	if (lpb_notified)
		unregister_die_notifier(&lpb_notifier);
	lpb_end_thread();
	lpbuild_cleanup();
	lpb_release_others();
}

static int __init lpb_init(void)
{
	int err;

	lpbuild_describe(&lpb_me.info);
	err = lpbuild_setup(KBUILD_MODNAME, strlen(KBUILD_MODNAME));
	if (err) {
		lpbuild_cleanup();
		lpb_release_others();
		return err;
	}
	lpbuild_describe(&lpb_me.info);
	if (deadline_ms)
		lpbuild_set_deadline(deadline_ms);
	if (oneshot)
		lpbuild_set_oneshot();
	if (mode && *mode) {
		err = lpbuild_set_mode(mode, strlen(mode));
		if (err) {
			pr_err("lpbuild: %s: LP5024: there is no mode %s\n", KBUILD_MODNAME, mode);
			goto undo;
		}
	}
	/* Before the files, whose writers ask things of it. */
	err = lpb_start_thread();
	if (!err)
		err = lpb_add_folder();
	if (!err && !dry_run) {
		err = lpb_fails("register_die_notifier") ? -ENOMEM : register_die_notifier(&lpb_notifier);
		lpb_notified = !err;
	}
	if (err) {
		pr_err("lpbuild: %s: LP5011: folder, notifier or thread cannot be made (%d)\n", KBUILD_MODNAME, err);
		goto undo;
	}
	lpb_request(dry_run ? LPB_REHEARSE : LPB_APPLY);
	/* In turns, so that a long deadline does not look like a hung task. */
	while (!wait_for_completion_timeout(&lpb_begun, 10 * HZ))
		;
	err = lpb_result;
	if (err)
		goto undo;
	/* From here on the module stays until it is reverted; the thread drops its reference. */
	return 0;
undo:
	lpb_undo();
	return err;
}

/*
 * `rmmod -f` does not ask for references (try_stop_module, kernel/module/main.c): it comes here with the patch applied
 * or being reverted, and frees the module when this returns. So this returns when the patch is out, however long that
 * takes. Called without the files, so that nobody else asks for anything.
 */
static void lpb_revert_before_exit(void)
{
	if (!READ_ONCE(lpb_stays))
		return;
	pr_err("lpbuild: %s: removed by force while applied, reverting it first\n", KBUILD_MODNAME);
	WRITE_ONCE(lpb_forced, true);
	/* Ends a draining. */
	lpbuild_cancel();
	lpb_request(LPB_REVERT);
	while (!wait_for_completion_timeout(&lpb_out, 10 * HZ))
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
