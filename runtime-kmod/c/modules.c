// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel modules that have functions of the patch: they come and go whatever the patch is doing (src/holders.rs).
 *
 * The state of a module says that it is going before anybody is told, in every path (delete_module, do_init_module, load_module), and
 * being told waits here for lpb_holders. So the memory of one that was not going when lpb_holders was taken stays while that is held,
 * and no reference on it is wanted. One whose notifiers refuse it goes without a word (bug_cleanup): only who refused it has to know.
 *
 * Lock order: the chain's, lpb_holders, the hotplug lock, text_mutex.
 */
#include "lp-runtime.h"

static bool lenient;
module_param(lenient, bool, 0444);
MODULE_PARM_DESC(lenient, "a kernel module that cannot be patched is loaded all the same when it comes");

static bool lpb_registered;
static bool lpb_only_looks;

static void lpb_lock_code(void)
{
	cpus_read_lock();
	mutex_lock(lpk_ptr_text_mutex);
}

static void lpb_unlock_code(void)
{
	mutex_unlock(lpk_ptr_text_mutex);
	cpus_read_unlock();
}

/* Whether the notifiers have been called for a module that is here; of one that is coming nothing else says so. */
static bool lpb_is_whole(struct module *mod)
{
	if (READ_ONCE(mod->state) == MODULE_STATE_LIVE)
		return true;
#ifdef CONFIG_KALLSYMS
	return READ_ONCE(mod->sect_attrs) != NULL;
#else
	return false;
#endif
}

/*
 * A module by its name that has its memory and is not going; under lpb_holders. It stays if it is whole; if not, it may be gone
 * when this returns. The list begins with this module, which is on it from before its init until behind its exit; its head is no
 * module, and lies in the kernel.
 */
struct module *lpb_find_module(const char *name, size_t len, int *whole)
{
	struct module *found = NULL;
	struct list_head *at;

	/* What is on the list is freed behind an RCU grace period. */
	preempt_disable();
	for (at = READ_ONCE(THIS_MODULE->list.next); at != &THIS_MODULE->list; at = READ_ONCE(at->next)) {
		struct module *mod = list_entry(at, struct module, list);
		enum module_state state;

		if ((unsigned long)at < MODULES_VADDR || (unsigned long)at >= MODULES_END)
			continue;
		state = READ_ONCE(mod->state);
		if (state == MODULE_STATE_UNFORMED || state == MODULE_STATE_GOING)
			continue;
		if (strlen(mod->name) == len && !memcmp(mod->name, name, len)) {
			found = mod;
			*whole = lpb_is_whole(mod);
			break;
		}
	}
	preempt_enable();
	return found;
}

/*
 * Not the symbols of its init, which are in the table until that is over; nor those that no section in memory has, which are not
 * in the table any more then (add_kallsyms, kernel/module/kallsyms.c).
 */
u64 lpb_module_symbol(struct module *mod, const char *name, size_t len, u32 position, u32 count)
{
	u64 found = 0;
#ifdef CONFIG_KALLSYMS
	struct mod_kallsyms *all;
	unsigned int i, n = 0;

	preempt_disable();
	all = rcu_dereference_sched(mod->kallsyms);
	for (i = 0; all && i < all->num_symtab; i++) {
		const Elf_Sym *sym = &all->symtab[i];
		const char *its = all->strtab + sym->st_name;
		u64 percpu = 0, size = 0;

		if (sym->st_shndx == SHN_UNDEF || sym->st_shndx >= SHN_LORESERVE)
			continue;
		if (strncmp(its, name, len) || its[len])
			continue;
		lpb_module_region(mod, LPB_REGION_PERCPU, &percpu, &size);
		if (!within_module_core(sym->st_value, mod) && sym->st_value - percpu >= size)
			continue;
		if (n++ == position)
			found = sym->st_value;
	}
	preempt_enable();
	if (n != count)
		return 0;
#endif
	return found;
}

void lpb_module_region(struct module *mod, int region, u64 *start, u64 *len)
{
	*start = *len = 0;
	if (region == LPB_REGION_PERCPU) {
#ifdef CONFIG_SMP
		*start = (u64)mod->percpu;
		*len = mod->percpu_size;
#endif
		return;
	}
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	{
		static const enum mod_mem_type types[] = {
			[LPB_REGION_TEXT] = MOD_TEXT, [LPB_REGION_RODATA] = MOD_RODATA,
			[LPB_REGION_RO_AFTER_INIT] = MOD_RO_AFTER_INIT, [LPB_REGION_DATA] = MOD_DATA,
		};

		*start = (u64)mod->mem[types[region]].base;
		*len = mod->mem[types[region]].size;
	}
#else
	{
		const struct module_layout *all = &mod->core_layout;
		const unsigned int ends[] = {
			[LPB_REGION_TEXT] = all->text_size, [LPB_REGION_RODATA] = all->ro_size,
			[LPB_REGION_RO_AFTER_INIT] = all->ro_after_init_size, [LPB_REGION_DATA] = all->size,
		};

		*start = (u64)all->base + (region == LPB_REGION_TEXT ? 0 : ends[region - 1]);
		*len = (u64)all->base + ends[region] - *start;
	}
#endif
}

void lpb_synchronize(void)
{
	synchronize_rcu();
}

/*
 * Jumps of keys and static calls that a module has: the kernel takes them for those of another module, of which it looks at these
 * fields alone (jump_label_add_module, jump_label_del_module, __jump_label_mod_update, kernel/jump_label.c;
 * static_call_add_module, static_call_del_module, __static_call_update, kernel/static_call_inline.c). Its own notifiers are
 * called, which take the hotplug lock and those of jump labels or static calls, and of code: none of ours but lpb_holders is held.
 * Handed over once for each coming, behind the module's own entries, which would overwrite the list in the key
 * (static_key_set_entries); taken back while the memory of the module, where the keys are, is there.
 *
 * A key that is constant when the init of its module is over has no list from then on: taken back when the module says that it is
 * live, before the key becomes read-only (do_init_module, kernel/module/main.c). Of a module that is live when it joins, the runtime has
 * written what the key says, and nothing is handed over.
 */
enum { LPB_JUMPS, LPB_CALLS, LPB_SEALED, LPB_TABLES };

struct lpb_table {
	struct module as_module;
	bool handed;
};

static struct lpb_table (*lpb_tables)[LPB_TABLES];

static int __init lpb_make_tables(int parts)
{
	bool any = false;
	int part, which;
	u64 first;

	for (part = 0; part < parts; part++)
		for (which = 0; which < LPB_TABLES; which++)
			any |= lpbuild_module_kept(part, which, &first) != 0;
	if (!any)
		return 0;
	lpb_tables = lpb_fails("tables of keys") ? NULL : kcalloc(parts, sizeof(*lpb_tables), GFP_KERNEL);
	return lpb_tables ? 0 : -ENOMEM;
}

/* The thunks return 0 where the kernel has no such function. */
static int lpb_tell_kernel(int which, unsigned long event, struct module *mod)
{
#ifdef CONFIG_HAVE_STATIC_CALL_INLINE
	if (which == LPB_CALLS)
		return lpk_static_call_module_notify(NULL, event, mod);
#endif
#ifdef CONFIG_JUMP_LABEL
	if (which != LPB_CALLS)
		return lpk_jump_label_module_notify(NULL, event, mod);
#endif
	return 0;
}

static int lpb_hand_over_one(int part, int which)
{
	static const char *const names[] = {
		[LPB_JUMPS] = "handing over jumps of keys",
		[LPB_CALLS] = "handing over static calls",
		[LPB_SEALED] = "handing over jumps of constant keys",
	};
	struct lpb_table *table;
	u64 first = 0;
	u32 n = lpbuild_module_kept(part, which, &first);

	if (!n)
		return 0;
	table = &lpb_tables[part][which];
	memset(table, 0, sizeof(*table));
	table->as_module.state = MODULE_STATE_LIVE;
	if (which == LPB_CALLS) {
#ifdef CONFIG_HAVE_STATIC_CALL_INLINE
		table->as_module.static_call_sites = (struct static_call_site *)first;
		table->as_module.num_static_call_sites = n;
#endif
	} else {
#ifdef CONFIG_JUMP_LABEL
		table->as_module.jump_entries = (struct jump_entry *)first;
		table->as_module.num_jump_entries = n;
#endif
	}
	/* One that fails has undone itself. */
	if (lpb_fails(names[which]) ||
	    lpb_tell_kernel(which, MODULE_STATE_COMING, &table->as_module) != NOTIFY_OK)
		return -ENOMEM;
	table->handed = true;
	return 0;
}

static void lpb_take_back_one(int part, int which)
{
	if (!lpb_tables || !lpb_tables[part][which].handed)
		return;
	lpb_tell_kernel(which, MODULE_STATE_GOING, &lpb_tables[part][which].as_module);
	lpb_tables[part][which].handed = false;
}

/* The caller takes back what was handed over before one that fails. */
static int lpb_hand_over(int part, bool live)
{
	int err = lpb_hand_over_one(part, LPB_CALLS);

	if (!err)
		err = lpb_hand_over_one(part, LPB_JUMPS);
	if (!err && !live)
		err = lpb_hand_over_one(part, LPB_SEALED);
	return err;
}

static void lpb_take_back(int part)
{
	int which;

	for (which = 0; which < LPB_TABLES; which++)
		lpb_take_back_one(part, which);
}

static void lpb_free_tables(void)
{
	kfree(lpb_tables);
	lpb_tables = NULL;
}

/* Under lpb_holders, which is held over the wait for who stands in the middle of an abs64 jump. */
static void lpb_detach(int part)
{
	bool wait;

	lpb_lock_code();
	wait = lpbuild_module_going(part);
	lpb_unlock_code();
	if (wait) {
#ifdef CONFIG_TASKS_RCU
		synchronize_rcu_tasks();
#else
		synchronize_rcu();
#endif
	}
	lpb_lock_code();
	lpbuild_module_gone(part);
	lpb_unlock_code();
	lpbuild_module_left(part);
	lpb_take_back(part);
}

/*
 * Under lpb_holders. A module that comes runs nothing before this returns, and nothing is written to one that is here: so the
 * jumps of its keys and its static calls may follow when all else is done. It may become live meanwhile, and says so when
 * lpb_holders is free.
 */
static int lpb_join(int part, struct module *mod, bool comes)
{
	bool was_here = lpbuild_module_is_here(part, mod), live = READ_ONCE(mod->state) == MODULE_STATE_LIVE;
	int err;

	lpb_lock_code();
	err = lpbuild_module_join(part, mod, live, comes, lenient);
	lpb_unlock_code();
	if (err || was_here || lpb_only_looks || !lpbuild_module_is_here(part, mod) || !lpb_hand_over(part, live))
		return err;
	lpb_detach(part);
	return lpbuild_module_refused(part, comes, lenient);
}

static int lpb_module_comes(struct notifier_block *nb, unsigned long event, void *data)
{
	struct module *mod = data;
	int part, err = 0;

	if (event != MODULE_STATE_COMING && event != MODULE_STATE_LIVE)
		return NOTIFY_DONE;
	part = lpbuild_module_named(mod->name, strlen(mod->name));
	if (part < 0)
		return NOTIFY_DONE;
	mutex_lock(&lpb_holders);
	if (event == MODULE_STATE_LIVE)
		lpb_take_back_one(part, LPB_SEALED);
	else if (!lpb_only_looks)
		err = lpb_join(part, mod, true);
	mutex_unlock(&lpb_holders);
	return notifier_from_errno(err);
}

static int lpb_module_goes(struct notifier_block *nb, unsigned long event, void *data)
{
	struct module *mod = data;
	int part;

	if (event != MODULE_STATE_GOING)
		return NOTIFY_DONE;
	part = lpbuild_module_named(mod->name, strlen(mod->name));
	if (part < 0)
		return NOTIFY_DONE;
	mutex_lock(&lpb_holders);
	/*
	 * One that comes and is refused, by us or by who was told behind us (blocking_notifier_call_chain_robust): where it was not joined,
	 * there is nothing to give back, and the file goes on to say why.
	 */
	if (READ_ONCE(mod->state) != MODULE_STATE_COMING || lpbuild_module_is_here(part, mod))
		lpb_detach(part);
	mutex_unlock(&lpb_holders);
	return NOTIFY_DONE;
}

/*
 * Behind everybody else, when the code of the module is as it will be and the kernel's own tables have it; and an error undoes
 * nothing of others that came later (blocking_notifier_call_chain_robust). Of patches that lie on each other the lower one is
 * told first, as it was there first: who has the same priority is called in the order of registration (notifier_chain_register,
 * kernel/notifier.c).
 */
static struct notifier_block lpb_coming = { .notifier_call = lpb_module_comes, .priority = INT_MIN };

/*
 * Behind everybody else as well, and of patches that lie on each other the upper one first: what it puts back is the jump of the one below,
 * which that takes for its own. Told as well when a notifier refuses a module that comes, which leaves out only the one that refused.
 */
static struct notifier_block lpb_going = { .notifier_call = lpb_module_goes };

/* A module that is here belongs to the patch from now on; one that is half loaded is waited for. */
static int __init lpb_attach(int part, u64 until)
{
	unsigned int ms = 1;

	for (;;) {
		struct module *mod;
		bool half = false;
		int err = 0, whole = 0;

		mutex_lock(&lpb_holders);
		mod = lpbuild_module_find(part, &whole);
		if (mod && whole)
			err = lpb_join(part, mod, false);
		else if (mod)
			half = !lpbuild_module_is_here(part, mod);
		mutex_unlock(&lpb_holders);
		if (err || !half)
			return err;
		if (ktime_get_mono_fast_ns() > until)
			return lpbuild_module_half(part);
		schedule_timeout_uninterruptible(msecs_to_jiffies(ms));
		ms = min(2 * ms, 100u);
	}
}

/* Who comes is told of before who is here is looked for, so that nobody is missed; joining is done once. */
int __init lpb_add_modules(bool only_looks, u32 deadline_ms)
{
	int part, parts = lpbuild_modules(), err;
	u64 until = ktime_get_mono_fast_ns() + (u64)deadline_ms * NSEC_PER_MSEC;

	if (!parts)
		return 0;
	lpb_only_looks = only_looks;
	err = lpb_make_tables(parts);
	if (err) {
		pr_err("lpbuild: %s: LP5010: no memory for jumps of keys and static calls\n", lpb_name);
		return err;
	}
	lpb_going.priority = INT_MIN + 1 + lpb_me.height;
	err = lpb_fails("register_module_notifier") ? -ENOMEM : register_module_notifier(&lpb_going);
	if (!err) {
		/* Who goes before both are there has not been joined. */
		err = lpb_fails("register_module_notifier") ? -ENOMEM : register_module_notifier(&lpb_coming);
		if (err)
			unregister_module_notifier(&lpb_going);
	}
	if (err) {
		pr_err("lpbuild: %s: LP5011: the notifier of modules cannot be registered (%d)\n", lpb_name, err);
		return err;
	}
	lpb_registered = true;
	for (part = 0; part < parts && !err; part++)
		err = lpb_attach(part, until);
	return err;
}

/* The patch is out of effect, and has nothing to do with modules from now on. No lock is held. */
void lpb_remove_modules(void)
{
	int part, parts = lpbuild_modules();

	if (!lpb_registered) {
		lpb_free_tables();
		return;
	}
	mutex_lock(&lpb_holders);
	lpbuild_modules_close();
	for (part = 0; part < parts; part++)
		lpb_detach(part);
	mutex_unlock(&lpb_holders);
	unregister_module_notifier(&lpb_coming);
	unregister_module_notifier(&lpb_going);
	lpb_registered = false;
	lpb_free_tables();
}
