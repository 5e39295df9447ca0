/* SPDX-License-Identifier: GPL-2.0-only */
	.macro function name, target
	.globl	\name
	.type	\name, @function
	.p2align 4
\name:
	push	%rbx
	mov	%rdi, %rbx
	mov	\target(%rip), %rdi
	call	take
	mov	%eax, %ebx
	pop	%rbx
	ret
	.size	\name, . - \name
	.endm
	.text
	function same, own_value
#ifdef IMAGE
	function check, other_value
#elif defined(NEW)
	.globl	check
	.type	check, @function
check:
	push	%rbx
	mov	own_value(%rip), %rdi
	inc	%rdi
	call	take
	pop	%rbx
	ret
	.size	check, . - check
#else
	function check, own_value
#endif
