/* SPDX-License-Identifier: GPL-2.0-only */
/* Lists and sets of BTF ids as include/linux/btf_ids.h lays them out, written anew for these cases. */
#ifndef CORPUS_BTF_H
#define CORPUS_BTF_H

#include "kernel.h"

#define GLUE2(a, b) a##b
#define GLUE(a, b) GLUE2(a, b)
#define BTF_IDS(text) asm(".pushsection .BTF_ids, \"a\"\n" text ".popsection")
#define ID_AS(symbol, flags) BTF_IDS(".local " #symbol "\n.type " #symbol ", @object\n.size " #symbol ", 4\n" #symbol ": .zero 4\n" flags)
#define ID_AS2(symbol, flags) ID_AS(symbol, flags)
/* The numbers at the end of a name have no meaning; here they differ between the two sides. */
#ifdef NEW
#define ID_NUMBER GLUE(7, __LINE__)
#else
#define ID_NUMBER __LINE__
#endif
#define ID(kind, name) ID_AS2(GLUE(__BTF_ID__##kind##__##name##__, ID_NUMBER), "")
#define ID_FLAGS(kind, name, flags) ID_AS2(GLUE(__BTF_ID__##kind##__##name##__, ID_NUMBER), ".long " #flags "\n")
#define ID_LIST(name) BTF_IDS(".local " #name "\n" #name ":\n")
#define ID_SET_START(name) ID_LIST(name); BTF_IDS(".local __BTF_ID__set__" #name "\n__BTF_ID__set__" #name ": .zero 4\n")
#define ID_SET_END(name) BTF_IDS(".size __BTF_ID__set__" #name ", .-" #name "\n")
#define ID_SET8_START(name) ID_LIST(name); BTF_IDS(".local __BTF_ID__set8__" #name "\n__BTF_ID__set8__" #name ": .zero 8\n")
#define ID_SET8_END(name) BTF_IDS(".size __BTF_ID__set8__" #name ", .-" #name "\n")

struct btf_id_set { u32 cnt, ids[]; };
struct btf_id_set8 { u32 cnt, flags; struct { u32 id, flags; } pairs[]; };

#endif
