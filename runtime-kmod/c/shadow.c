// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shadow variables (include/lpbuild.h): values beside objects of the kernel.
 *
 * All values of one name are a set. Readers find them under RCU, whoever changes a set holds its lock. A set has no address of the
 * module in it, so that a patch that takes the place of this one goes on with it: then it has two users, while both patches run,
 * and outlives this module. What the patch uses is known when it is built (lpb_kinds, in the file that is written for it).
 */
#include "lp-runtime.h"

#include <linux/hash.h>
#include <linux/rculist.h>
#include <linux/refcount.h>

#define LPB_SHADOW_BITS 8

/* As in include/lpbuild.h: static data of the patch. */
struct lpb_shadow {
	struct lpb_values *values;
	unsigned int size;
	unsigned int layout;
	char name[LPB_SHADOW_NAME];
};

struct lpb_value {
	struct hlist_node link;
	struct rcu_head rcu;
	const void *obj;
	/* Of those that were detached together. */
	struct lpb_value *next;
	char data[] __aligned(8);
};

struct lpb_values {
	refcount_t users;
	unsigned int size;
	char name[LPB_SHADOW_NAME];
	/* With interrupts off: any context may attach. */
	spinlock_t lock;
	struct hlist_head buckets[1 << LPB_SHADOW_BITS];
};

static struct hlist_head *lpb_bucket(struct lpb_values *values, const void *obj)
{
	return &values->buckets[hash_ptr(obj, LPB_SHADOW_BITS)];
}

/* The set does not change while code of the patch can run, and it is the same whoever comes first. */
static struct lpb_values *lpb_values_of(struct lpb_shadow *shadow)
{
	struct lpb_values *values = READ_ONCE(shadow->values);
	unsigned int i;

	if (likely(values))
		return values;
	for (i = 0; i < lpb_me.n_values; i++) {
		values = lpb_me.values[i];
		if (values->size == shadow->size && !strcmp(values->name, shadow->name)) {
			WRITE_ONCE(shadow->values, values);
			return values;
		}
	}
	pr_err_once("lpbuild: %s: there is no set for shadow variables %s\n", lpb_name, shadow->name);
	return NULL;
}

static struct lpb_value *lpb_find_value(struct lpb_values *values, const void *obj)
{
	struct lpb_value *value;

	hlist_for_each_entry_rcu(value, lpb_bucket(values, obj), link, lockdep_is_held(&values->lock))
		if (value->obj == obj)
			return value;
	return NULL;
}

void *lpb_shadow_get(const void *obj, struct lpb_shadow *shadow)
{
	struct lpb_values *values = lpb_values_of(shadow);
	struct lpb_value *value = NULL;

	if (values) {
		rcu_read_lock();
		value = lpb_find_value(values, obj);
		rcu_read_unlock();
	}
	return value ? value->data : NULL;
}

void *lpb_shadow_attach(const void *obj, struct lpb_shadow *shadow, gfp_t gfp, lpb_init_t init, void *arg, bool or_get)
{
	struct lpb_values *values = lpb_values_of(shadow);
	struct lpb_value *value, *found;
	unsigned long flags;
	int err = 0;

	if (!values)
		return NULL;
	if (or_get) {
		void *data = lpb_shadow_get(obj, shadow);

		if (data)
			return data;
	}
	value = kzalloc(sizeof(*value) + values->size, gfp);
	if (!value)
		return NULL;
	value->obj = obj;
	spin_lock_irqsave(&values->lock, flags);
	found = lpb_find_value(values, obj);
	if (!found) {
		if (init)
			err = init(obj, value->data, arg);
		if (!err)
			hlist_add_head_rcu(&value->link, lpb_bucket(values, obj));
	}
	spin_unlock_irqrestore(&values->lock, flags);
	if (!found && !err)
		return value->data;
	kfree(value);
	return found && or_get ? found->data : NULL;
}

bool lpb_shadow_detach(const void *obj, struct lpb_shadow *shadow, lpb_release_t release)
{
	struct lpb_values *values = lpb_values_of(shadow);
	struct lpb_value *value;
	unsigned long flags;

	if (!values)
		return false;
	spin_lock_irqsave(&values->lock, flags);
	value = lpb_find_value(values, obj);
	if (value)
		hlist_del_rcu(&value->link);
	spin_unlock_irqrestore(&values->lock, flags);
	if (!value)
		return false;
	if (release)
		release(obj, value->data);
	kfree_rcu(value, rcu);
	return true;
}

void lpb_shadow_detach_all(struct lpb_shadow *shadow, lpb_release_t release)
{
	struct lpb_values *values = lpb_values_of(shadow);
	struct lpb_value *all = NULL, *value;
	struct hlist_node *next;
	unsigned long flags;
	unsigned int i;

	if (!values)
		return;
	for (i = 0; i < ARRAY_SIZE(values->buckets); i++) {
		spin_lock_irqsave(&values->lock, flags);
		hlist_for_each_entry_safe(value, next, &values->buckets[i], link) {
			hlist_del_rcu(&value->link);
			value->next = all;
			all = value;
		}
		spin_unlock_irqrestore(&values->lock, flags);
	}
	while ((value = all)) {
		all = value->next;
		if (release)
			release(value->obj, value->data);
		kfree_rcu(value, rcu);
	}
}

static void lpb_put_values(struct lpb_values *values)
{
	struct lpb_value *value;
	struct hlist_node *next;
	unsigned int i;

	if (!refcount_dec_and_test(&values->users))
		return;
	/* Nobody is in the code of the last user, so nobody looks. */
	for (i = 0; i < ARRAY_SIZE(values->buckets); i++) {
		hlist_for_each_entry_safe(value, next, &values->buckets[i], link)
			kfree(value);
		cond_resched();
	}
	kfree(values);
}

/* That of a patch whose place is taken, which is held meanwhile, else a new one. */
static struct lpb_values *__init lpb_get_values(const struct lpb_kind *kind)
{
	struct lpb_values *values;
	struct lpb_peer *peer;
	unsigned int i, n;

	for (n = 0; (peer = lpb_replaced_peer(n)); n++) {
		for (i = 0; i < peer->n_values; i++) {
			values = peer->values[i];
			if (values->size == kind->size && !strcmp(values->name, kind->name)) {
				refcount_inc(&values->users);
				return values;
			}
		}
	}
	values = lpb_fails("kzalloc shadow") ? NULL : kzalloc(sizeof(*values), GFP_KERNEL);
	if (!values)
		return NULL;
	refcount_set(&values->users, 1);
	spin_lock_init(&values->lock);
	values->size = kind->size;
	memcpy(values->name, kind->name, sizeof(values->name));
	return values;
}

int __init lpb_add_shadows(void)
{
	const struct lpb_kind *kind;
	unsigned int n = 0;

	for (kind = lpb_kinds; kind->size; kind++)
		n++;
	if (!n)
		return 0;
	lpb_me.values = kcalloc(n, sizeof(*lpb_me.values), GFP_KERNEL);
	if (!lpb_me.values)
		return -ENOMEM;
	for (kind = lpb_kinds; kind->size; kind++) {
		struct lpb_values *values = lpb_get_values(kind);

		if (!values)
			return -ENOMEM;
		lpb_me.values[lpb_me.n_values++] = values;
	}
	return 0;
}

/* When nobody is in the code of the patch any more. */
void lpb_remove_shadows(void)
{
	while (lpb_me.n_values)
		lpb_put_values(lpb_me.values[--lpb_me.n_values]);
	kfree(lpb_me.values);
	lpb_me.values = NULL;
}
