// SPDX-License-Identifier: GPL-2.0-only
/* /sys/kernel/lpbuild/NAME. */
#include "lp-runtime.h"

static struct kobject *lpb_parent, *lpb_folder;

ssize_t lpb_show(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *out, loff_t off,
			size_t count)
{
	int what = (long)attr->private;
	size_t size = lpbuild_show_size(what), len;
	char *text = lpb_fails("kvmalloc") ? NULL : kvmalloc(size, GFP_KERNEL);
	ssize_t n;

	if (!text)
		return -ENOMEM;
	if (what == LPB_SHOW_HOLDERS)
		mutex_lock(&lpb_holders);
	mutex_lock(&lpb_status);
	len = lpbuild_show(what, text, size);
	mutex_unlock(&lpb_status);
	if (what == LPB_SHOW_HOLDERS)
		mutex_unlock(&lpb_holders);
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

/* A time of at least a millisecond. */
static int lpb_time_of(const char *in, size_t count, u32 *ms)
{
	char text[16] = "";
	int err;

	memcpy(text, in, min(count, sizeof(text) - 1));
	err = kstrtou32(text, 10, ms);
	if (err)
		return err;
	return *ms ? 0 : -EINVAL;
}

static ssize_t lpb_store_deadline(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *in,
				 loff_t off, size_t count)
{
	u32 ms;
	int err = lpb_time_of(in, count, &ms);

	if (err)
		return err;
	lpbuild_set_deadline(ms);
	return count;
}

static ssize_t lpb_store_patience(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *in,
				 loff_t off, size_t count)
{
	u32 ms;
	int err = lpb_time_of(in, count, &ms);

	if (err)
		return err;
	lpbuild_set_patience(ms);
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
LPB_FILE(patience_ms, 0644, lpb_store_patience, LPB_SHOW_PATIENCE);
LPB_FILE(enabled, 0644, lpb_store_enabled, LPB_SHOW_ENABLED);
LPB_FILE(oneshot, 0444, NULL, LPB_SHOW_ONESHOT);
LPB_FILE(switched, 0444, NULL, LPB_SHOW_SWITCHED);
LPB_FILE(force, 0644, lpb_store_force, LPB_SHOW_FORCE);
LPB_FILE(after, 0444, NULL, LPB_SHOW_AFTER);
LPB_FILE(replaces, 0444, NULL, LPB_SHOW_REPLACES);
LPB_FILE(holders, 0444, NULL, LPB_SHOW_HOLDERS);

static struct bin_attribute *lpb_files[] = {
	&lpb_file_state, &lpb_file_mode, &lpb_file_functions, &lpb_file_blockers, &lpb_file_pause_ns,
	&lpb_file_attempts, &lpb_file_last_error, &lpb_file_version, &lpb_file_deadline_ms, &lpb_file_enabled,
	&lpb_file_oneshot, &lpb_file_switched, &lpb_file_force, &lpb_file_after,
	&lpb_file_replaces, &lpb_file_patience_ms, &lpb_file_holders, &lpb_me.file, NULL,
};

static const struct attribute_group lpb_group = { .bin_attrs = lpb_files };

/*
 * The folder `lpbuild` belongs to all patches together: the first makes it, every one holds a reference, the last
 * one's drop removes it. text_mutex is the one lock they all know, so it orders finding against dropping.
 */
static struct kobject *__init lpb_find_parent(void)
{
	struct kernfs_node *node = kernfs_find_and_get(kernel_kobj->sd, "lpbuild");
	struct kobject *parent;

	if (!node)
		return kobject_create_and_add("lpbuild", kernel_kobj);
	parent = kobject_get_unless_zero(node->priv);
	kernfs_put(node);
	return parent;
}

int __init lpb_add_folder(void)
{
	mutex_lock(lpk_ptr_text_mutex);
	if (!lpb_fails("kobject_create_and_add"))
		lpb_parent = lpb_find_parent();
	if (lpb_parent && !lpb_fails("kobject_create_and_add"))
		lpb_folder = kobject_create_and_add(lpb_name, lpb_parent);
	mutex_unlock(lpk_ptr_text_mutex);
	if (!lpb_folder || lpb_fails("sysfs_create_group"))
		return -ENOMEM;
	return sysfs_create_group(lpb_folder, &lpb_group);
}

void lpb_remove_folder(void)
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
