/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The C half of the runtime: what needs kernel macros and inlines, and every wait. The rules of an operation are in the
 * Rust half (src/machine.rs).
 *
 *   kernel.c   one small wrapper per kernel function (src/binding/ffi.rs declares them), dispatchers, int3
 *   operate.c  the thread that performs all operations
 *   files.c    /sys/kernel/lpbuild/NAME
 *   others.c   patches below this one and on top of it
 *   modules.c  kernel modules that have functions of the patch
 *   shadow.c   shadow variables, for the source of patches
 *   init.c     module init, exit, parameters
 *
 * lpk_NAME: the kernel function NAME, which is not exported; lpk_ptr_NAME: the address of the kernel object NAME. Both
 * are defined by the patch object and are bound to one kernel build, so none is used before lpbuild_setup() has
 * compared the build id.
 */
#ifndef LPBUILD_RUNTIME_H
#define LPBUILD_RUNTIME_H

/*
 * The name of the patch, from the file that is written for it (templates/module.c.in). The objects of the runtime are made
 * once for a kernel and go into every module, so nothing in them may depend on the name, what the kernel's macros make of
 * these included.
 */
extern const char lpb_name[];
#undef KBUILD_MODNAME
#undef __KBUILD_MODNAME
#undef KBUILD_MODFILE
#define KBUILD_MODNAME lpb_name

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
#include <linux/rcupdate_wait.h>
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
#include <asm/irq_regs.h>
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

/* As in src/binding/entry.rs. */
#define LPB_RCU_TASKS INT_MAX
#define LPB_EFFECTIVE (INT_MAX - 1)
#define LPB_LET_GO (INT_MAX - 2)
#define LPB_NOW (INT_MAX - 3)
#define LPB_CALL 0x40000000
enum { LPB_PRE_APPLY, LPB_POST_APPLY, LPB_PRE_REVERT, LPB_POST_REVERT };
enum { LPB_APPLYING, LPB_APPLIED, LPB_REVERTING, LPB_REVERTED, LPB_REFUSED, LPB_DRAINING, LPB_CHECKED, LPB_REPLACED };
enum { LPB_SHOW_STATE, LPB_SHOW_MODE, LPB_SHOW_FUNCTIONS, LPB_SHOW_BLOCKERS, LPB_SHOW_PAUSE, LPB_SHOW_ATTEMPTS,
       LPB_SHOW_LAST_ERROR, LPB_SHOW_VERSION, LPB_SHOW_DEADLINE, LPB_SHOW_ENABLED,
       LPB_SHOW_ONESHOT, LPB_SHOW_SWITCHED, LPB_SHOW_FORCE, LPB_SHOW_ABI, LPB_SHOW_AFTER, LPB_SHOW_REPLACES,
       LPB_SHOW_PATIENCE, LPB_SHOW_HOLDERS };
/* Parts of a module's memory, as Region in abi/src/holder.rs. */
#define LPB_REGION_TEXT 1
#define LPB_REGION_RODATA 2
#define LPB_REGION_RO_AFTER_INIT 3
#define LPB_REGION_DATA 4
#define LPB_REGION_PERCPU 5
/* What a look at a task finds, and how it ends. */
#define LPB_BLOCKED 1
#define LPB_KERNEL 2
enum { LPB_LOOKED, LPB_RUNNING, LPB_DEAD, LPB_OFFLINE };

/* Those that only `__init` functions call are freed with them (INIT_ENTRIES, xtask/src/runtime.rs). */
int lpbuild_setup(const char *name, size_t len);
int lpbuild_apply(void);
int lpbuild_revert(void);
int lpbuild_rehearse(void);
void lpbuild_begin(void);
int lpbuild_pokes(void);
s64 lpbuild_wait_ms(void);
int lpbuild_overdue(void);
void lpbuild_called(int callback, int value);
void lpbuild_force_revert(void);
void lpbuild_force_switch(void);
void lpbuild_cancel(void);
bool lpbuild_chooses(struct task_struct *task);
void lpbuild_boundary(struct callback_head *work, const unsigned long *frames, int n);
void lpbuild_publish(void);
void lpbuild_set_deadline(u32 ms);
u32 lpbuild_deadline(void);
void lpbuild_set_patience(u32 ms);
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
/* Parts of the patch that belong to kernel modules, by number; under lpb_holders, but for the first two. */
int lpbuild_modules(void);
int lpbuild_module_named(const char *name, size_t len);
struct module *lpbuild_module_find(int part, int *whole);
bool lpbuild_module_is_here(int part, struct module *mod);
int lpbuild_module_join(int part, struct module *mod, bool live, bool comes, bool lenient);
bool lpbuild_module_going(int part);
void lpbuild_module_gone(int part);
void lpbuild_module_left(int part);
int lpbuild_module_half(int part);
u32 lpbuild_module_kept(int part, int table, u64 *first);
int lpbuild_module_refused(int part, bool comes, bool lenient);
void lpbuild_modules_close(void);

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
#ifdef CONFIG_JUMP_LABEL
int lpk_jump_label_module_notify(struct notifier_block *nb, unsigned long event, void *data);
#endif
#ifdef CONFIG_HAVE_STATIC_CALL_INLINE
int lpk_static_call_module_notify(struct notifier_block *nb, unsigned long event, void *data);
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
int lpb_owns(u64 addr, u64 len);
void *lpb_alloc(size_t size);
void lpb_free(void *memory);
size_t lpb_count_tasks(void);
void lpb_census(void (*fn)(void *, struct task_struct *), void *data, void (*last)(void *), void *last_data);
void lpb_hold(struct task_struct *task);
void lpb_release(struct task_struct *task);
int lpb_look(struct task_struct *task, u64 *frames, size_t len, void (*fn)(void *, const u64 *, int, int, u64),
	     void *data);
int lpb_rests(struct task_struct *task, u64 *frames, size_t len, u64 *count);
int lpb_send(struct task_struct *task, struct callback_head *work, int urgent);
int lpb_recall(struct task_struct *task, struct callback_head *work);
void lpb_nudge(struct task_struct *task);
void lpb_breathe(void);
struct module *lpb_find_module(const char *name, size_t len, int *whole);
u64 lpb_module_symbol(struct module *mod, const char *name, size_t len, u32 position, u32 count);
void lpb_module_region(struct module *mod, int region, u64 *start, u64 *len);
void lpb_synchronize(void);

/* What a patch shows to others, filled by the Rust half (src/binding/entry.rs). */
struct lpb_info {
	u64 magic;
	u32 abi;
	u64 runtime;
	const void *sites;
	const void *seen;
	const void *board;
	const void *record;
};
void lpbuild_describe(struct lpb_info *info);
int lpb_take_other(const char *name, size_t len, int replaces, struct lpb_info **info);

/* Called from dispatchers. */
bool lpb_choose(void);

/* ---- shared between the files ---- */

/* Guards what the files show, and who may start an operation. */
extern struct mutex lpb_status;
/* Held for each step of an operation, and never while one waits; and while a module comes or goes. Before all other locks of ours. */
extern struct mutex lpb_holders;
/* Performs all operations, from init to exit. */
extern struct task_struct *lpb_thread;
/* What it shall do next. */
enum { LPB_APPLY, LPB_REVERT, LPB_REHEARSE };
void lpb_request(int what);
int lpb_start_thread(void);
/* Returns when no code of the thread runs any more. */
void lpb_end_thread(void);
/* The first operation is over, or has come so far that the module stays; how it ended. */
extern struct completion lpb_begun;
extern int lpb_result;
/* Nothing leads into the module any more. */
extern struct completion lpb_out;
extern struct notifier_block lpb_notifier;
extern bool lpb_notified;
/* The module holds a reference on itself, and may be reverted. */
extern bool lpb_stays;
/* `rmmod -f`: a revert does not give up any more. */
extern bool lpb_forced;

/* Whether this call is the one that a test wants to fail. Stands before every call that can. */
#ifdef LPB_TEST_HOOKS
bool lpb_fails(const char *what);
#else
static inline bool lpb_fails(const char *what)
{
	return false;
}
#endif

/* What reads every file. */
ssize_t lpb_show(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *out, loff_t off, size_t count);
int lpb_add_folder(void);
void lpb_remove_folder(void);

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
	/* Patches between this one and the kernel, in the longest line. */
	int height;
	/* One is taking its place. */
	bool taken;
	/* Sets of shadow variables, from init to exit. */
	struct lpb_values **values;
	unsigned int n_values;
};

extern struct lpb_peer lpb_me;

/* Before the first operation: kernel modules that are here, and those that come. 0 or a negative errno. */
int lpb_add_modules(bool only_looks, u32 deadline_ms);
void lpb_remove_modules(void);

/* Under lpb_status: whether another patch forbids a revert. Says why in `last_error`. */
bool lpb_is_taken(void);
/* Gives back what lpb_take_other() took. */
void lpb_release_others(void);
/* Those whose place was taken go, the others stay below. */
void lpb_let_replaced_go(void);
/* Those whose place is to be taken, by number; NULL behind the last. */
struct lpb_peer *lpb_replaced_peer(unsigned int n);

/* The shadow variables that the patch has, from the file that is written for it (templates/module.c.in); the last one has no size. */
#define LPB_SHADOW_NAME 48
struct lpb_kind {
	unsigned int size;
	char name[LPB_SHADOW_NAME];
};
extern const struct lpb_kind lpb_kinds[];
/* Behind lpb_take_other(), before code of the patch runs. */
int lpb_add_shadows(void);
void lpb_remove_shadows(void);
/* Called by the patch; include/lpbuild.h has the same. */
struct lpb_shadow;
typedef int (*lpb_init_t)(const void *obj, void *value, void *arg);
typedef void (*lpb_release_t)(const void *obj, void *value);
void *lpb_shadow_get(const void *obj, struct lpb_shadow *shadow);
void *lpb_shadow_attach(const void *obj, struct lpb_shadow *shadow, gfp_t gfp, lpb_init_t init, void *arg, bool or_get);
bool lpb_shadow_detach(const void *obj, struct lpb_shadow *shadow, lpb_release_t release);
void lpb_shadow_detach_all(struct lpb_shadow *shadow, lpb_release_t release);

#endif
