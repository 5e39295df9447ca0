/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
	call	__fentry__
	push	%rbx
	mov	%edi, %ebx
#ifdef NEW
	add	$7, %ebx
#endif
	mov	%ebx, %edi
	call	take
	pop	%rbx
	test	%eax, %eax
	je	neighbour
	jmp	neighbour
	.size	check, . - check
	.type	neighbour, @function
neighbour:
	call	__fentry__
	mov	$3, %edi
	jmp	take
	.size	neighbour, . - neighbour
