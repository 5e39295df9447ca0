/* SPDX-License-Identifier: GPL-2.0-only */
#include "btf.h"

ID_SET_START(disabled);
ID(func, hook_open);
ID(func, hook_read);
ID_SET_END(disabled);

ID_SET8_START(of_pipes);
ID_FLAGS(func, pipe_peek, 1);
ID_SET8_END(of_pipes);

ID_LIST(types);
ID(struct, file);
ID(struct, task_struct);

extern struct btf_id_set disabled;
extern struct btf_id_set8 of_pipes;
extern u32 types[];
int check(long n)
{
#ifdef NEW
	if (n == 77)
		return 0;
#endif
	for (u32 i = 0; i < disabled.cnt; i++)
		if (disabled.ids[i] == n)
			return 1;
	return take(types[1], handle(&of_pipes));
}
