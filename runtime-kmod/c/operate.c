// SPDX-License-Identifier: GPL-2.0-only
/* The thread that performs all operations, from init to exit: the waits between the steps of the Rust half. */
#include "lp-runtime.h"

DEFINE_MUTEX(lpb_status);
DEFINE_MUTEX(lpb_holders);
struct task_struct *lpb_thread;
static unsigned long lpb_requests;
DECLARE_COMPLETION(lpb_begun);
DECLARE_COMPLETION(lpb_out);
int lpb_result;
bool lpb_notified;
bool lpb_stays;
bool lpb_forced;

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

/* No site leads into the module and no task is inside: it may go. This thread waits for kthread_stop. */
static void lpb_leave(void)
{
	lpb_remove_modules();
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

/*
 * One step with the locks it wants. Lock order of jump labels and kprobes (kernel/jump_label.c, kernel/kprobes.c); lpb_holders is
 * outermost, so that the functions which the patch has in modules are the same throughout a step.
 */
static int lpb_locked(int (*step)(void))
{
	bool pokes;
	int result;

	mutex_lock(&lpb_holders);
	cpus_read_lock();
	pokes = lpbuild_pokes();
	if (pokes)
		mutex_lock(lpk_ptr_text_mutex);
	result = step();
	if (pokes)
		mutex_unlock(lpk_ptr_text_mutex);
	cpus_read_unlock();
	mutex_unlock(&lpb_holders);
	lpb_publish();
	return result;
}

/*
 * A grace period that was begun is waited for to its end, by whichever step, before the next begins: the callback, which is
 * code of the kernel, completes what belongs to this module.
 */
static struct rcu_synchronize lpb_grace;
static bool lpb_in_grace;

static void lpb_begin_grace(void)
{
	init_completion(&lpb_grace.completion);
	lpb_in_grace = true;
	/* As synchronize_rcu_tasks() does; with this callback it is not put off (kernel/rcu/tasks.h). */
#if defined(CONFIG_TASKS_RCU)
	call_rcu_tasks(&lpb_grace.head, wakeme_after_rcu);
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	call_rcu_hurry(&lpb_grace.head, wakeme_after_rcu);
#else
	call_rcu(&lpb_grace.head, wakeme_after_rcu);
#endif
}

/* In turns, so that a long one does not look like a hung task. `false`: not yet. */
static bool lpb_grace_over(s64 ms)
{
	unsigned long turn = 10 * HZ;

	if (ms >= 0 && ms < 10 * MSEC_PER_SEC)
		turn = msecs_to_jiffies(max_t(s64, ms, 1));
	if (wait_for_completion_timeout(&lpb_grace.completion, turn))
		lpb_in_grace = false;
	return !lpb_in_grace;
}

/* RCU tasks, from now on; or until the deadline, when the operation takes another way. */
static void lpb_rcu_tasks(void)
{
	bool fresh;
	s64 ms;
	int step;

	do {
		fresh = !lpb_in_grace;
		if (fresh)
			lpb_begin_grace();
		for (;;) {
			ms = lpbuild_wait_ms();
			if (lpb_grace_over(ms))
				break;
			if (ms < 0 || lpbuild_wait_ms() > 0)
				continue;
			step = lpb_locked(lpbuild_overdue);
			if (step == LPB_EFFECTIVE) {
				lpbuild_log_end(0);
				lpb_stay();
			} else if (step >= 0) {
				return;
			} else {
				/* A kprobe has come meanwhile: it is tried again. */
				schedule_timeout_uninterruptible(HZ / 10);
			}
		}
	} while (!fresh);
}

static int lpb_operate(bool revert)
{
	int step;

	lpbuild_begin();
	for (;;) {
		step = lpb_locked(revert ? lpbuild_revert : lpbuild_apply);
		if (step <= 0)
			return step;
		if (step == LPB_RCU_TASKS)
			lpb_rcu_tasks();
		else if (step == LPB_LET_GO) {
			/* Sites first: what they were copied from goes. */
			mutex_lock(&lpb_holders);
			lpbuild_replaced_others();
			mutex_unlock(&lpb_holders);
			lpb_let_replaced_go();
		} else if (step == LPB_EFFECTIVE) {
			lpbuild_log_end(0);
			lpb_stay();
		}
		else if (step == LPB_NOW)
			cond_resched();
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
	mutex_lock(&lpb_holders);
	cpus_read_lock();
	mutex_lock(lpk_ptr_text_mutex);
	lpbuild_rehearse();
	mutex_unlock(lpk_ptr_text_mutex);
	cpus_read_unlock();
	mutex_unlock(&lpb_holders);
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
	while (lpb_in_grace)
		lpb_grace_over(-1);
	return 0;
}

void lpb_request(int what)
{
	set_bit(what, &lpb_requests);
	wake_up_process(lpb_thread);
}

void lpb_end_thread(void)
{
	if (lpb_thread)
		kthread_stop(lpb_thread);
	lpb_thread = NULL;
}

int __init lpb_start_thread(void)
{
	struct task_struct *thread = ERR_PTR(-ENOMEM);

	if (!lpb_fails("kthread_create"))
		thread = kthread_create(lpb_main, NULL, "lpbuild/%s", lpb_name);
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	WRITE_ONCE(lpb_thread, thread);
	return 0;
}
