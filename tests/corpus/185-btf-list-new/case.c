/* SPDX-License-Identifier: GPL-2.0-only */
#include "btf.h"

/* The author accepts that the lists of the kernel stay; what new code finds in them is another matter. */
ID_LIST(types);
ID(struct, file);
#ifdef NEW
ID(struct, task_struct);
ID_LIST(fresh);
ID(struct, inode);
extern u32 fresh[];
#endif
extern u32 types[];
int check(long n)
{
#ifdef NEW
	return take(types[1], n);
#else
	return take(types[0], n);
#endif
}
int other(long n)
{
#ifdef NEW
	n += fresh[0];
#endif
	return take(n, 2) + 1;
}
