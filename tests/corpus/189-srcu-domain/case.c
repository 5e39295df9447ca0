/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* DEFINE_STATIC_SRCU as an object of the kernel image has it (include/linux/srcutree.h). */
struct data { long a[4]; };
struct domain { struct data *sda; long state; };
#define DEFINE_SRCU(name) \
	static struct data in(".data..percpu") name##_srcu_data; \
	static struct domain name = { .sda = &name##_srcu_data }
DEFINE_SRCU(users);
#ifdef NEW
DEFINE_SRCU(readers);
#endif
int check(long n)
{
	handle(&users);
#ifdef NEW
	handle(&readers);
#endif
	return take(n, 1) + 1;
}
