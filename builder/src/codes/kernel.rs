//! LP12xx, LP30xx: the kernel image and binding to it.

use super::Severity::Broken;

codes! {
    LP1201 {
        class: Broken,
        title: "not an x86-64 kernel image",
        why: "The file is neither a vmlinux (ELF64 ET_EXEC for EM_X86_64) nor a bzImage (the HdrS boot header of Documentation/arch/x86/boot.rst).",
        advice: "give /boot/vmlinuz-RELEASE of the kernel to patch, or the vmlinux it was made from",
    }
    LP1202 {
        class: Broken,
        title: "malformed bzImage header",
        why: "The boot header is truncated, older than protocol 2.08 (which introduced payload_offset), or points outside the file.",
        advice: "copy the image again; it is truncated or damaged",
    }
    LP1203 {
        class: Broken,
        title: "unknown compression of the kernel",
        why: "The payload begins with none of the magic numbers of gzip, bzip2, lzma, xz, lzo, lz4, zstd or an uncompressed ELF.",
        advice: "give the vmlinux of this kernel instead",
    }
    LP1204 {
        class: Broken,
        title: "the compressed kernel does not unpack",
        why: "The payload is truncated or damaged, its size differs from the one recorded at its end, or it is larger than a kernel can be.",
        advice: "copy the image again; it is truncated or damaged",
    }
    LP1205 {
        class: Broken,
        title: "malformed vmlinux",
        why: "A header, section or segment of the kernel's ELF points outside the file or wraps around the address space.",
        advice: "give the image as the distribution ships it",
    }
    LP1206 {
        class: Broken,
        title: "the kernel has no build id",
        why: "A patch is tied to one kernel by its GNU build id, and the notes of this image hold none.",
        advice: "link the kernel with --build-id=sha1, as kbuild does since 4.15",
    }
    LP1207 {
        class: Broken,
        title: "the kernel's release is missing or contradictory",
        why: "The release is read from linux_banner and from the boot header's kernel_version; both must agree.",
        advice: "give the image as the distribution ships it",
    }
    LP1208 {
        class: Broken,
        title: "the kernel has no symbol names",
        why: "No kallsyms token table was found: the kernel was built without CONFIG_KALLSYMS, so nothing inside it can be named.",
        advice: "build the kernel with CONFIG_KALLSYMS=y",
    }
    LP1209 {
        class: Broken,
        title: "kallsyms tables that cannot be read",
        why: "The token table is there, but no arrangement of the other tables known for 6.1 and later (base-relative offsets) is consistent with it.",
        advice: "report this kernel's release; its table layout is not supported yet",
    }
}
