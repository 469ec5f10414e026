//! Extended BPF: an assembler for programs that calculate, and the way into the kernel for them.
//!
//! For programs that are fed packets (`BPF_PROG_TYPE_SOCKET_FILTER`), call no function of the kernel
//! and only jump forward. Whatever a program has in it as constants may be a secret: its
//! instructions are wiped when they are let go, and the kernel is not asked to explain what it has
//! against them.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use libc::{c_int, c_long};
use zeroize::Zeroizing;

/// As many instructions as are written down without moving them, which would leave a copy behind.
const ROOM: usize = 512;

/// A register of 64 bits. A program starts with the packet's context in [`R1`](Register::R1) and
/// ends with its answer in [`R0`](Register::R0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    /// The end of the stack, which is 512 bytes long and cannot be written to itself.
    Frame,
}

/// What is done to a register, with another one or a constant.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Op {
    Add = 0x00,
    Multiply = 0x20,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Xor = 0xa0,
    Move = 0xb0,
}

/// How two numbers without sign are compared.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum If {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
    Less = 0xa0,
    AtMost = 0xb0,
}

/// How much of a packet is loaded.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Width {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// A place that jumps lead to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label(usize);

// Of `linux/bpf.h` and `linux/bpf_common.h`: classes, modes, and where the operand is.
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const STX: u8 = 0x03;
const JUMP: u8 = 0x05;
const ALU64: u8 = 0x07;
const IMMEDIATE: u8 = 0x00;
const ABSOLUTE: u8 = 0x20;
const INDIRECT: u8 = 0x40;
const MEMORY: u8 = 0x60;
const DOUBLE: u8 = 0x18;
const REGISTER: u8 = 0x08;
const ALWAYS: u8 = 0x00;
const EXIT: u8 = 0x90;

/// Writes a program down, instruction by instruction.
pub(crate) struct Assembler {
    /// As the kernel has them in memory (`struct bpf_insn`).
    code: Zeroizing<Vec<u64>>,
    /// Where each label is.
    labels: Vec<Option<usize>>,
    /// The jumps, and where each leads.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub(crate) fn new() -> Self {
        let code = Zeroizing::new(Vec::with_capacity(ROOM));
        Self { code, labels: Vec::new(), jumps: Vec::new() }
    }

    /// Calculates with another register.
    pub(crate) fn with(&mut self, op: Op, to: Register, by: Register) {
        self.push(ALU64 | REGISTER | op as u8, to, by, 0);
    }

    /// Calculates with a constant, whose sign is extended.
    pub(crate) fn by(&mut self, op: Op, to: Register, by: i32) {
        self.push(ALU64 | op as u8, to, Register::R0, by);
    }

    /// Sets a register to any number.
    pub(crate) fn set(&mut self, to: Register, number: u64) {
        self.push(LD | DOUBLE | IMMEDIATE, to, Register::R0, number as i32);
        // It takes two instructions, the second of which is nothing but the upper half.
        self.push(0, Register::R0, Register::R0, (number >> 32) as i32);
    }

    /// Loads a number of the packet into [`R0`](Register::R0), from so many bytes behind its
    /// beginning. Ends the program with the answer 0 if it has none there. The context is expected
    /// in [`R6`](Register::R6), and [`R1`](Register::R1) to [`R5`](Register::R5) are lost.
    pub(crate) fn load_packet(&mut self, width: Width, at: i32) {
        self.push(LD | ABSOLUTE | width as u8, Register::R0, Register::R0, at);
    }

    /// The same from as many bytes behind the beginning as a register says.
    pub(crate) fn load_packet_at(&mut self, width: Width, at: Register) {
        self.push(LD | INDIRECT | width as u8, Register::R0, at, 0);
    }

    /// Puts a register on the stack, as its word of that number.
    pub(crate) fn put(&mut self, word: u8, from: Register) {
        self.push_at(STX | MEMORY | DOUBLE, Register::Frame, from, word);
    }

    /// Gets it back.
    pub(crate) fn get(&mut self, to: Register, word: u8) {
        self.push_at(LDX | MEMORY | DOUBLE, to, Register::Frame, word);
    }

    /// A label that is not anywhere yet.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts the label in front of what is written next.
    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// Goes on at a label.
    pub(crate) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP | ALWAYS, Register::R0, Register::R0, 0);
    }

    /// Goes on there if it is so of a register and another one.
    pub(crate) fn jump_if(&mut self, a: Register, is: If, b: Register, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP | REGISTER | is as u8, a, b, 0);
    }

    /// Goes on there if it is so of a register and a constant.
    pub(crate) fn jump_if_it(&mut self, a: Register, is: If, b: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP | is as u8, a, Register::R0, b);
    }

    /// Ends the program.
    pub(crate) fn exit(&mut self) {
        self.push(JUMP | EXIT, Register::R0, Register::R0, 0);
    }

    /// Gives the program to the kernel, which needs `CAP_BPF` or `CAP_SYS_ADMIN` in the first user
    /// namespace, unless anybody may (`kernel.unprivileged_bpf_disabled` = 0). The name is for
    /// `bpftool`; up to 15 bytes of it count.
    ///
    /// # Errors
    /// What the kernel says, or that a label is nowhere.
    pub(crate) fn load(mut self, name: &CStr) -> io::Result<OwnedFd> {
        for (at, label) in mem::take(&mut self.jumps) {
            // Counted from the instruction behind the jump.
            let to = self.labels[label.0].and_then(|to| to.checked_sub(at + 1));
            let distance = to.and_then(|distance| i16::try_from(distance).ok());
            let distance = distance.ok_or(io::ErrorKind::InvalidInput)?;
            let mut bytes = self.code[at].to_ne_bytes();
            bytes[2..4].copy_from_slice(&distance.to_ne_bytes());
            self.code[at] = u64::from_ne_bytes(bytes);
        }
        let mut attributes = LoadAttributes {
            program_type: SOCKET_FILTER,
            instruction_count: self.code.len() as u32,
            instructions: self.code.as_ptr() as u64,
            // Only who calls functions of the kernel must have a licence that it knows.
            license: c"Apache-2.0".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: [0; 16],
        };
        for (to, from) in attributes.name[..15].iter_mut().zip(name.to_bytes()) {
            *to = *from;
        }
        // SAFETY: the attributes are those of BPF_PROG_LOAD; what they point to lives until the
        // call returns, and the kernel only reads it.
        let fd = unsafe { bpf(PROGRAM_LOAD, &mut attributes) }?;
        // SAFETY: the kernel has made this file descriptor for us (close-on-exec), nobody else
        // knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    fn push(&mut self, code: u8, to: Register, from: Register, immediate: i32) {
        self.write(code, to, from, 0, immediate);
    }

    fn push_at(&mut self, code: u8, to: Register, from: Register, word: u8) {
        self.write(code, to, from, -8 * (i16::from(word) + 1), 0);
    }

    fn write(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        let (to, from) = (to as u8, from as u8);
        // Two bit fields, which stand in the order of the machine's bytes.
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&immediate.to_ne_bytes());
        self.code.push(u64::from_ne_bytes(bytes));
    }
}

/// `BPF_PROG_LOAD`
const PROGRAM_LOAD: c_int = 5;
/// `BPF_PROG_TYPE_SOCKET_FILTER`
const SOCKET_FILTER: u32 = 1;

/// What `BPF_PROG_LOAD` is told, as far as Linux 4.16 knows it.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The system call.
///
/// # Safety
/// `A` must be the attributes of `command`, and its pointers must be good for what that does.
unsafe fn bpf<A>(command: c_int, attributes: &mut A) -> io::Result<c_long> {
    // SAFETY: the attributes are as many bytes as we say; for the rest the caller answers.
    match unsafe {
        libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, mem::size_of::<A>())
    } {
        ..0 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::{AsRawFd, BorrowedFd};

    use super::*;

    /// `BPF_PROG_TEST_RUN`
    const TEST_RUN: c_int = 10;

    #[repr(C)]
    struct RunAttributes {
        program: u32,
        answer: u32,
        len_in: u32,
        len_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }

    /// What the program answers to an IP packet; and how long it took, in nanoseconds, on average
    /// of so many times.
    pub(crate) fn run(
        program: BorrowedFd<'_>,
        packet: &[u8],
        repeat: u32,
    ) -> io::Result<(u32, u32)> {
        // The kernel takes an Ethernet header off, and looks at its type.
        let kind = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        let frame = [&[0; 12][..], &kind, packet].concat();
        let mut attributes = RunAttributes {
            program: program.as_raw_fd().cast_unsigned(),
            answer: 0,
            len_in: frame.len() as u32,
            len_out: 0,
            data_in: frame.as_ptr() as u64,
            data_out: 0,
            repeat,
            duration: 0,
        };
        // SAFETY: the attributes are those of BPF_PROG_TEST_RUN; the frame lives until the call
        // returns and is only read, and nothing is written but the attributes.
        unsafe { bpf(TEST_RUN, &mut attributes) }?;
        Ok((attributes.answer, attributes.duration))
    }

    impl Assembler {
        /// Whether all that was written has been in one place all the time.
        pub(crate) fn stayed(&self) -> bool {
            self.code.capacity() == ROOM
        }
    }

    #[test]
    fn a_jump_to_nowhere_or_back_is_refused() {
        for back in [false, true] {
            let mut program = Assembler::new();
            let label = program.label();
            if back {
                program.place(label);
            }
            program.jump(label);
            program.exit();
            let error = program.load(c"nowhere").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
