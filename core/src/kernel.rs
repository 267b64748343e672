//! A kernel: its name, its WGSL text, and its bindings.

use crate::buf::Elem;
use crate::caps::Caps;
use crate::format::Format;
use nemoflash_shaders as wgsl;

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// A result: the kernel writes it and does not read it before. Tests fill it with NaN first.
    Write,
    /// Read and written: a state, or a sum that the result is added to.
    Update,
}

/// One storage binding of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The variable's name in WGSL.
    pub name: &'static str,
    /// How the kernel uses it.
    pub access: Access,
    /// What it holds.
    pub elem: Elem,
}

/// A read-only binding.
pub const fn read(name: &'static str, elem: Elem) -> Bind {
    Bind { name, access: Access::Read, elem }
}

/// A binding that the kernel writes and does not read before.
pub const fn write(name: &'static str, elem: Elem) -> Bind {
    Bind { name, access: Access::Write, elem }
}

/// A binding that the kernel reads and writes.
pub const fn update(name: &'static str, elem: Elem) -> Bind {
    Bind { name, access: Access::Update, elem }
}

/// A source: a piece of a kernel's WGSL text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of `shaders/`.
    Text(&'static str),
    /// `lib/reduce.wgsl`, or its subgroup twin where the device has subgroups.
    Reduce,
    /// `lib/fold.wgsl`, or its subgroup twin where the device has subgroups.
    Fold,
    /// `lib/lines.wgsl`, or its subgroup twin where the device has subgroups.
    Lines,
    /// `lib/team.wgsl`, or its subgroup twin where the device has subgroups.
    Team,
    /// The first text, or the second one if the constants have [`COOP`]: the same with cooperative matrices.
    Coop(&'static str, &'static str),
    /// The `lib/weights_*.wgsl` of the matrix's format, see [`Format`].
    Weights,
}

/// A compute kernel. The entry point is named like the kernel. Binding 0 of group 0 holds the numbers of the operator,
/// and bindings 1.. are `binds` in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Name of the file, of the entry point, and of the label.
    pub name: &'static str,
    /// The sources, joined in this order.
    pub parts: &'static [Source],
    /// Storage bindings 1.. in order.
    pub binds: &'static [Bind],
}

/// A number that a kernel's text needs as a constant, such as workgroup and tile sizes or lengths of register arrays.
pub type Const = (&'static str, u32);

/// The constant of kernels that multiply with cooperative matrices.
pub const COOP: Const = ("COOP", 1);

/// Whether a kernel with these constants multiplies with cooperative matrices, which rounds to f16.
pub fn coop(consts: &[Const]) -> bool {
    consts.contains(&COOP)
}

impl Kernel {
    /// The whole text for a device: one `const` line for each number, then the sources.
    pub fn source(&self, consts: &[Const], caps: &Caps) -> String {
        let mut text = String::new();
        let coop = coop(consts);
        if coop {
            text.push_str("enable f16;\nenable wgpu_cooperative_matrix;\n");
        }
        if caps.enable_subgroups {
            text.push_str("enable subgroups;\n");
        }
        for (name, value) in consts {
            text.push_str(&format!("const {name}: u32 = {value}u;\n"));
        }
        if self.parts.iter().any(|part| matches!(part, Source::Reduce | Source::Lines | Source::Team)) {
            text.push_str(&format!("const SUBGROUP: u32 = {}u;\n", caps.subgroup.unwrap_or(1)));
        }
        for part in self.parts {
            text.push_str(match part {
                Source::Text(text) => text,
                Source::Reduce if caps.subgroup.is_some() => wgsl::REDUCE_SUBGROUP,
                Source::Reduce => wgsl::REDUCE,
                Source::Fold if caps.subgroup.is_some() => wgsl::FOLD_SUBGROUP,
                Source::Fold => wgsl::FOLD,
                Source::Lines if caps.subgroup.is_some() => wgsl::LINES_SUBGROUP,
                Source::Lines => wgsl::LINES,
                Source::Team if caps.subgroup.is_some() => wgsl::TEAM_SUBGROUP,
                Source::Team => wgsl::TEAM,
                Source::Coop(_, text) if coop => text,
                Source::Coop(text, _) => text,
                Source::Weights => Format::text(consts),
            });
        }
        unroll(&text, consts)
    }
}

/// Unrolls loops, because drivers unroll few of the loops that naga writes. The lines between `//#for NAME in COUNT`
/// and `//#end` are repeated for each number below the count. `#NAME` is replaced by that number. COUNT is a constant
/// of the kernel or a number.
///
/// # Panics
/// If another line begins with `//#`, if COUNT is not a constant of the kernel, or if an end is missing. No user meets
/// this: shaders are part of the program, and a test unrolls each of them.
fn unroll(text: &str, consts: &[Const]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(command) = line.trim_start().strip_prefix("//#") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let head = command.strip_prefix("for ").and_then(|head| head.split_once(" in "));
        let (name, count) = head.unwrap_or_else(|| panic!("{line}: not `//#for NAME in COUNT`"));
        let body = body(&mut lines).unwrap_or_else(|| panic!("{line}: `//#end` is missing"));
        let value = || consts.iter().find(|(other, _)| *other == count).map(|(_, value)| *value);
        let count = count.parse().ok().or_else(value).unwrap_or_else(|| panic!("{line}: no constant has that name"));
        for i in 0..count {
            out.push_str(&unroll(&body.replace(&format!("#{name}"), &i.to_string()), consts));
        }
    }
    out
}

/// The lines of a loop's body. Also takes the `//#end` that belongs to the loop.
fn body(lines: &mut std::str::Lines) -> Option<String> {
    let (mut body, mut depth) = (String::new(), 1);
    for line in lines {
        match line.trim_start() {
            line if line.starts_with("//#for ") => depth += 1,
            "//#end" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(body);
        }
        body.push_str(line);
        body.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::unroll;

    #[test]
    fn loops_are_written_out() {
        let text = "a\n  //#for I in N\nb#I\n//#for J in M\nc#I_#J\n//#end\n//#end\nd\n";
        let wanted = "a\nb0\nc0_0\nc0_1\nb1\nc1_0\nc1_1\nd\n";
        assert_eq!(unroll(text, &[("N", 2), ("M", 2)]), wanted);
        assert_eq!(unroll(text, &[("N", 0)]), "a\nd\n");
        assert_eq!(unroll("//#for I in 2\n#I\n//#end\n", &[]), "0\n1\n");
        assert_eq!(unroll("no loop\n", &[]), "no loop\n");
    }

    #[test]
    fn faults_of_loops_are_found() {
        let fault = |text: &str| {
            let text = text.to_owned();
            let said = std::panic::catch_unwind(move || unroll(&text, &[("N", 2)])).expect_err("a fault");
            said.downcast_ref::<String>().cloned().expect("words")
        };
        assert_eq!(fault("//#for I in M\n//#end\n"), "//#for I in M: no constant has that name");
        assert_eq!(fault("//#for I in N\na\n"), "//#for I in N: `//#end` is missing");
        for text in ["//#fro I in N", "//#for I", "//#end", "//#"] {
            assert_eq!(fault(text), format!("{text}: not `//#for NAME in COUNT`"));
        }
    }
}
