// SPDX-License-Identifier: GPL-2.0-only
/* Module init, exit and parameters. */
#include "lp-runtime.h"

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

static char *mode;
module_param(mode, charp, 0444);
MODULE_PARM_DESC(mode, "stop-machine, drain or transition (default: as the patch says)");
static bool oneshot;
module_param(oneshot, bool, 0444);
MODULE_PARM_DESC(oneshot, "the patch stays until the next boot");
static bool dry_run;
module_param(dry_run, bool, 0444);
MODULE_PARM_DESC(dry_run, "check everything, apply nothing; what was found is in /sys/kernel/lpbuild/NAME");
/* A time that was set to 0. As a parameter that is not given it is 0 as well, so it has to be seen when it is set. */
static const char *zero;

static int lpb_set_time(const char *value, const struct kernel_param *param)
{
	int err = param_set_uint(value, param);

	if (!err && !*(unsigned int *)param->arg)
		zero = param->name;
	return err;
}

static const struct kernel_param_ops lpb_time = { .set = lpb_set_time, .get = param_get_uint };

/* As module_param, which knows no other functions. */
#define LPB_TIME(_name, _text)									\
	static unsigned int _name;								\
	module_param_cb(_name, &lpb_time, &_name, 0444);					\
	__MODULE_PARM_TYPE(_name, "uint");							\
	MODULE_PARM_DESC(_name, _text)

LPB_TIME(deadline_ms, "milliseconds after which an operation that finds the functions busy gives up (default: as the patch says)");
LPB_TIME(patience_ms, "transition: milliseconds before tasks in user space are disturbed (default: as the patch says)");

#ifdef LPB_TEST_HOOKS
static unsigned int fail_call;
module_param(fail_call, uint, 0444);
MODULE_PARM_DESC(fail_call, "for tests: the call of this number, among those that can fail, fails (0: none)");

bool lpb_fails(const char *what)
{
	static atomic_t calls;

	if (!fail_call || atomic_inc_return(&calls) != fail_call)
		return false;
	pr_info("lpbuild: %s: call %u made to fail: %s\n", lpb_name, fail_call, what);
	return true;
}
#endif

static void lpb_undo(void)
{
	lpb_remove_folder();
	lpb_remove_modules();
	if (lpb_notified)
		unregister_die_notifier(&lpb_notifier);
	lpb_end_thread();
	lpbuild_cleanup();
	lpb_remove_shadows();
	lpb_release_others();
}

static int __init lpb_init(void)
{
	int err;

	if (zero) {
		pr_err("lpbuild: %s: LP5025: %s is 0\n", lpb_name, zero);
		return -EINVAL;
	}
	lpbuild_describe(&lpb_me.info);
	err = lpbuild_setup(lpb_name, strlen(lpb_name));
	if (err) {
		lpbuild_cleanup();
		lpb_release_others();
		return err;
	}
	lpbuild_describe(&lpb_me.info);
	if (deadline_ms)
		lpbuild_set_deadline(deadline_ms);
	if (patience_ms)
		lpbuild_set_patience(patience_ms);
	if (oneshot)
		lpbuild_set_oneshot();
	if (mode && *mode) {
		err = lpbuild_set_mode(mode, strlen(mode));
		if (err) {
			pr_err("lpbuild: %s: LP5024: there is no mode %s\n", lpb_name, mode);
			goto undo;
		}
	}
	err = lpb_add_shadows();
	if (err) {
		pr_err("lpbuild: %s: LP5011: no memory for shadow variables\n", lpb_name);
		goto undo;
	}
	err = lpb_add_modules(dry_run, deadline_ms ? deadline_ms : lpbuild_deadline());
	if (err)
		goto undo;
	/* Before the files, whose writers ask things of it. */
	err = lpb_start_thread();
	if (!err)
		err = lpb_add_folder();
	if (!err && !dry_run) {
		err = lpb_fails("register_die_notifier") ? -ENOMEM : register_die_notifier(&lpb_notifier);
		lpb_notified = !err;
	}
	if (err) {
		pr_err("lpbuild: %s: LP5011: folder, notifier or thread cannot be made (%d)\n", lpb_name, err);
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
	pr_err("lpbuild: %s: removed by force while applied, reverting it first\n", lpb_name);
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
