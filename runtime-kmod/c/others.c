// SPDX-License-Identifier: GPL-2.0-only
/* Patches below this one and on top of it. */
#include "lp-runtime.h"

/* In this file, because objtool drops the ENDBR of a function whose address no data of its own file has. */
static void lpb_leave_replaced(void);

static bool lpb_is_applied(void)
{
	return lpb_stays && lpbuild_state() == LPB_APPLIED;
}

struct lpb_peer lpb_me = {
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

/* As many as a patch can name (MAX_OTHERS in src/record.rs). */
#define LPB_OTHERS 32

static struct lpb_other {
	struct lpb_peer *peer;
	bool replaces;
} lpb_others[LPB_OTHERS];
static unsigned int lpb_n_others;

bool lpb_is_taken(void)
{
	if (!lpb_me.on_top && !lpb_me.taken)
		return false;
	lpbuild_refuse_on_top();
	return true;
}

/* A module cannot get past lpb_remove_folder while text_mutex is held, so what is found here is still there. */
static struct lpb_peer *__init lpb_find_peer(const char *name)
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
int __init lpb_take_other(const char *name, size_t len, int replaces, struct lpb_info **info)
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
	lpb_me.height = max(lpb_me.height, peer->height + 1);
	lpb_others[lpb_n_others].peer = peer;
	lpb_others[lpb_n_others++].replaces = replaces;
	*info = &peer->info;
	return 0;
}

struct lpb_peer *lpb_replaced_peer(unsigned int n)
{
	unsigned int i;

	for (i = 0; i < lpb_n_others; i++)
		if (lpb_others[i].replaces && !n--)
			return lpb_others[i].peer;
	return NULL;
}

void lpb_release_others(void)
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

void lpb_let_replaced_go(void)
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
	lpb_remove_shadows();
	lpb_release_others();
	module_put(THIS_MODULE);
	complete_all(&lpb_out);
}
