// SPDX-License-Identifier: GPL-2.0-only
/* One small wrapper per kernel function, what dispatchers call, and int3. */
#include "lp-runtime.h"

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

/* Kernel text is mapped read-only; this is a second, writable view of its pages. */
u64 lpb_map(u64 addr, size_t len)
{
	struct page *few[2], **pages = few;
	unsigned int i, n = PFN_UP(offset_in_page(addr) + len);
	void *view = NULL;

	if (n > ARRAY_SIZE(few))
		pages = lpb_alloc(n * sizeof(*pages));
	if (!pages)
		return 0;
	for (i = 0; i < n; i++) {
		unsigned long page = (addr & PAGE_MASK) + i * PAGE_SIZE;

		if (page >= MODULES_VADDR && page < MODULES_END)
			pages[i] = vmalloc_to_page((void *)page);
		else if (page >= __START_KERNEL_map && page < MODULES_VADDR)
			pages[i] = virt_to_page((void *)page);
		else
			break;
		if (!pages[i])
			break;
	}
	if (i == n && !lpb_fails("vmap"))
		view = vmap(pages, n, VM_MAP, PAGE_KERNEL);
	if (pages != few)
		lpb_free(pages);
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
#ifdef CONFIG_RETHOOK
	/* The unwinder warns of a return that a kretprobe waits for while the task can run (rethook_find_ret_addr). */
	if (task != current && task_is_running(task) && READ_ONCE(task->rethooks.first))
		return -EINVAL;
#endif
	return lpk_stack_trace_save_tsk_reliable(task, (unsigned long *)frames, len);
}

void lpb_who(struct task_struct *task, struct lpb_who *who)
{
	BUILD_BUG_ON(sizeof(who->comm) != TASK_COMM_LEN);
	who->pid = task_pid_nr(task);
	memcpy(who->comm, task->comm, sizeof(who->comm));
}

/* Whether the piece is in one part of this module that stays behind its init. */
int lpb_owns(u64 addr, u64 len)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	for_class_mod_mem_type(type, core) {
		u64 base = (u64)THIS_MODULE->mem[type].base, size = THIS_MODULE->mem[type].size;

		if (addr >= base && len <= size && addr - base <= size - len)
			return 1;
	}
	return 0;
#else
	u64 base = (u64)THIS_MODULE->core_layout.base, size = THIS_MODULE->core_layout.size;

	return addr >= base && len <= size && addr - base <= size - len;
#endif
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
	int n = lpb_stack(task, look->frames, look->len);

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

struct lpb_rest {
	struct task_struct *task;
	u64 *frames;
	size_t len;
	bool running, rests;
};

/* Whether the address is in schedule(), which a task that is put off in the middle of something does not go through. */
static bool lpb_in_schedule(u64 addr)
{
	static u64 size;
	char text[KSYM_SYMBOL_LEN];
	u64 found;

	if (!READ_ONCE(size)) {
		/* NAME+0xOFFSET/0xSIZE */
		sprint_symbol(text, (unsigned long)schedule);
		if (!strchr(text, '/') || sscanf(strchr(text, '/'), "/0x%llx", &found) != 1)
			found = 1;
		WRITE_ONCE(size, found);
	}
	return addr - (u64)schedule < READ_ONCE(size);
}

static int lpb_rest_locked(struct task_struct *task, void *arg)
{
	struct lpb_rest *rest = arg;

	rest->running = READ_ONCE(task->on_cpu);
	/* Outside of the locks: what was written there is looked at. */
	if (!rest->running && lpb_stack(task, rest->frames, rest->len) < 2)
		rest->frames[1] = 0;
	return 0;
}

static void lpb_rest_interrupt(void *arg)
{
	struct pt_regs *regs = get_irq_regs();
	struct lpb_rest *rest = arg;

	rest->rests = current == rest->task && regs && user_mode(regs);
}

/*
 * Whether RCU tasks would not wait for the task, as nearly as it can be seen from outside (rcu_tasks_is_holdout,
 * kernel/rcu/tasks.h; rcu_note_context_switch, kernel/rcu/tree_plugin.h). `count` changes when it has slept, or when the
 * clock has found it in user mode.
 */
int lpb_rests(struct task_struct *task, u64 *frames, size_t len, u64 *count)
{
	struct lpb_rest rest = { .task = task, .frames = frames, .len = len };
	int cpu;

	*count = task->nvcsw + task->utime;
	if (!READ_ONCE(task->on_rq) || is_idle_task(task))
		return 1;
	/* It says by itself that it rests, however much it has to do (handle_softirqs, kernel/softirq.c). */
	if (task->flags & PF_KTHREAD && !strncmp(task->comm, "ksoftirqd/", 10))
		return 1;
	lpk_task_call_func(task, lpb_rest_locked, &rest);
	if (!rest.running)
		return lpb_in_schedule(frames[1]);
	/* The hotplug lock is held. */
	cpu = task_cpu(task);
	if (cpu_online(cpu) && !lpb_fails("smp_call_function_single"))
		smp_call_function_single(cpu, lpb_rest_interrupt, &rest, 1);
	return rest.rests;
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

struct notifier_block lpb_notifier = { .notifier_call = lpb_die, .priority = INT_MAX };
