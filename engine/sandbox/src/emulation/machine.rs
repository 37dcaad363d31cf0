//! Architectures as an ELF header tells them, and the smallest program for each: it ends with 0 and does nothing else.

use std::{fmt::Write as _, path::Path};

/// An architecture.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// In the words of OCI.
    pub architecture: &'static str,
    /// In Rust's words.
    pub(super) rust: &'static str,
    /// In QEMU's words.
    pub(super) qemu: &'static str,
    /// `e_machine` (System V ABI, and its supplements for each processor).
    number: u16,
    /// `ELFCLASS64`.
    wide: bool,
    /// `ELFDATA2MSB`.
    big: bool,
    /// `e_flags` that the ABI wants.
    flags: u32,
    /// `exit(0)` in its instructions.
    code: &'static [u8],
}

const MACHINES: [Machine; 7] = [
    Machine {
        architecture: "amd64",
        rust: "x86_64",
        qemu: "x86_64",
        number: 62,
        wide: true,
        big: false,
        flags: 0,
        // mov eax, 60; xor edi, edi; syscall
        code: &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05],
    },
    Machine {
        architecture: "386",
        rust: "x86",
        qemu: "i386",
        number: 3,
        wide: false,
        big: false,
        flags: 0,
        // mov eax, 1; xor ebx, ebx; int 0x80
        code: &[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80],
    },
    Machine {
        architecture: "arm64",
        rust: "aarch64",
        qemu: "aarch64",
        number: 183,
        wide: true,
        big: false,
        flags: 0,
        // mov x0, #0; mov x8, #93; svc #0
        code: &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4],
    },
    Machine {
        architecture: "arm",
        rust: "arm",
        qemu: "arm",
        number: 40,
        wide: false,
        big: false,
        // EABI version 5
        flags: 0x0500_0000,
        // mov r0, #0; mov r7, #1; svc #0
        code: &[0, 0, 0xa0, 0xe3, 1, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef],
    },
    Machine {
        architecture: "riscv64",
        rust: "riscv64",
        qemu: "riscv64",
        number: 243,
        wide: true,
        big: false,
        flags: 0,
        // li a0, 0; li a7, 93; ecall
        code: &[0x13, 0x05, 0, 0, 0x93, 0x08, 0xd0, 0x05, 0x73, 0, 0, 0],
    },
    Machine {
        architecture: "ppc64le",
        rust: "powerpc64",
        qemu: "ppc64le",
        number: 21,
        wide: true,
        big: false,
        // ELF version 2 of the ABI
        flags: 2,
        // li r3, 0; li r0, 1; sc
        code: &[0, 0, 0x60, 0x38, 1, 0, 0, 0x38, 2, 0, 0, 0x44],
    },
    Machine {
        architecture: "s390x",
        rust: "s390x",
        qemu: "s390x",
        number: 22,
        wide: true,
        big: true,
        flags: 0,
        // lghi %r2, 0; svc 1
        code: &[0xa7, 0x29, 0, 0, 0x0a, 1],
    },
];

impl Machine {
    /// All that are known.
    pub const fn all() -> &'static [Self] {
        &MACHINES
    }

    /// By its name in OCI's words.
    pub fn of(architecture: &str) -> Option<&'static Self> {
        MACHINES
            .iter()
            .find(|machine| machine.architecture == architecture)
    }

    fn half(&self, value: u16) -> [u8; 2] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn word(&self, value: u32) -> [u8; 4] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    /// An address or offset in the machine's own width.
    fn address(&self, value: u32) -> Vec<u8> {
        let word = self.word(value);
        match (self.wide, self.big) {
            (false, _) => word.to_vec(),
            (true, true) => [[0; 4], word].concat(),
            (true, false) => [word, [0; 4]].concat(),
        }
    }

    /// The first twenty bytes of its executables, up to `e_machine`.
    fn head(&self) -> Vec<u8> {
        let mut head = vec![0x7f, b'E', b'L', b'F'];
        head.extend([if self.wide { 2 } else { 1 }, if self.big { 2 } else { 1 }, 1, 0]);
        head.extend([0; 8]);
        head.extend(self.half(2));
        head.extend(self.half(self.number));
        head
    }

    /// The smallest executable: header, one segment, the code.
    pub(super) fn program(&self) -> Vec<u8> {
        const BASE: u32 = 0x40_0000;
        // No kernel has larger pages.
        const PAGE: u32 = 0x1_0000;
        let (header, segment) = if self.wide { (64_u16, 56_u16) } else { (52, 32) };
        let start = u32::from(header + segment);
        let size = start + self.code.len() as u32;
        let mut file = self.head();
        file.extend(self.word(1));
        file.extend(self.address(BASE + start));
        file.extend(self.address(header.into()));
        file.extend(self.address(0));
        file.extend(self.word(self.flags));
        for value in [header, segment, 1, 0, 0, 0] {
            file.extend(self.half(value));
        }
        // PT_LOAD, read and execute.
        file.extend(self.word(1));
        if self.wide {
            file.extend(self.word(5));
        }
        for value in [0, BASE, BASE, size, size] {
            file.extend(self.address(value));
        }
        if !self.wide {
            file.extend(self.word(5));
        }
        file.extend(self.address(PAGE));
        file.extend(self.code);
        file
    }

    /// The line by which the kernel learns of an emulator (Linux `Documentation/admin-guide/binfmt-misc.rst`).
    pub(super) fn handler(&self, emulator: &Path) -> String {
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
                text
            })
        };
        // What does not count: the ABI's name, and the bit that tells a position-independent executable.
        let mut mask = [0xff_u8; 20];
        mask[7] = 0;
        mask[if self.big { 17 } else { 16 }] = 0xfe;
        // P: the program keeps its own name, by which busybox knows which of its applets is meant. F: opened now, so that
        // the emulator need not be in the root of a step.
        format!(
            ":slipway-{}:M::{}:{}:{}:PF",
            self.architecture,
            hex(&self.head()),
            hex(&mask),
            emulator.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

    #[test]
    fn this_machines_own_program_runs() {
        let dir = tempfile::tempdir().unwrap();
        let own = Machine::all()
            .iter()
            .find(|machine| machine.rust == std::env::consts::ARCH);
        assert!(own.is_none_or(|machine| machine.runs(dir.path())));
    }

    #[test]
    fn qemu_runs_the_program_of_each_machine() {
        let dir = tempfile::tempdir().unwrap();
        for machine in Machine::all() {
            let qemu = format!("/usr/bin/qemu-{}-static", machine.qemu);
            if !Path::new(&qemu).exists() {
                println!("skipped {}: {qemu} is not here", machine.architecture);
                continue;
            }
            let file = dir.path().join(machine.architecture);
            fs::write(&file, machine.program()).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            let status = Command::new(qemu).arg(&file).status().unwrap();
            assert!(status.success(), "{}: {status}", machine.architecture);
        }
    }

    #[test]
    fn a_handler_names_the_architecture_by_its_header() {
        let line = Machine::of("s390x").unwrap().handler(Path::new("/q/qemu-s390x"));
        assert_eq!(
            line,
            ":slipway-s390x:M::\\x7f\\x45\\x4c\\x46\\x02\\x02\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x16:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff:/q/qemu-s390x:PF"
        );
        assert!(line.len() < 1920, "the kernel takes no longer one");
    }
}
