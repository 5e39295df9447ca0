/* SPDX-License-Identifier: GPL-2.0-only */
	.macro reader name, from
	.globl	\name
	.type	\name, @function
	.p2align 4
\name:
	push	%rbx
	mov	\from(%rip), %rdi
	call	take
	mov	%eax, %ebx
	pop	%rbx
	ret
	.size	\name, . - \name
	.endm
	.text
#ifdef IMAGE
	reader check, second
	reader other, second+8
#elif defined(NEW)
	.globl	check
	.type	check, @function
	.p2align 4
check:
	push	%rbx
	mov	first(%rip), %rdi
	inc	%rdi
	call	take
	pop	%rbx
	ret
	.size	check, . - check
	.globl	other
	.type	other, @function
	.p2align 4
other:
	push	%rbx
	mov	second(%rip), %rdi
	inc	%rdi
	call	take
	pop	%rbx
	ret
	.size	other, . - other
#else
	reader check, first
	reader other, second
#endif
	.section .bss.first, "aw", @nobits
	.type	first, @object
first:	.zero 16
	.size	first, 16
	.section .bss.second, "aw", @nobits
	.type	second, @object
second:	.zero 16
	.size	second, 16
