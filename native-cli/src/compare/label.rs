//! Names of columns: as short as possible, and different for different columns.

use super::columns::Column;
use crate::html::units::cut;
use nemoflash_bench::report::Clock;
use std::collections::BTreeMap;

/// Longest name of an adapter in a label, in characters.
const LONGEST: usize = 32;

/// An adapter's name without its details: `llvmpipe (LLVM 19.1.7, 256 bits)` becomes `llvmpipe`.
pub fn short(adapter: &str) -> String {
    let mut name = adapter.replace("(R)", "").replace("(TM)", "").replace("(tm)", "");
    if let Some(inner) = name.strip_prefix("ANGLE (").and_then(|rest| rest.strip_suffix(')')) {
        // ANGLE (vendor, renderer, interface)
        name = inner.split(", ").nth(1).unwrap_or(inner).into();
    }
    let bare = name.split(" (").next().unwrap_or_default().split(" / ").last().unwrap_or_default();
    let words: Vec<&str> = bare.split_whitespace().collect();
    let name = if words.is_empty() { "unnamed adapter".to_owned() } else { words.join(" ") };
    cut(if name == "cpu" { "CPU" } else { &name }, LONGEST)
}

/// `native`, or the name of the browser.
pub fn runtime(column: &Column) -> String {
    let software = &column.software;
    let runtime = match software.runtime.as_str() {
        "browser" => cut(software.host.split(['/', '.', ';', '(']).next().unwrap_or_default().trim(), 24),
        other => cut(other, 24),
    };
    if runtime.is_empty() { "browser".to_owned() } else { runtime }
}

/// Backend and runtime, such as `vulkan, native`. For the CPU twins, only the runtime.
fn place(column: &Column) -> String {
    let runtime = runtime(column);
    match column.device.backend.as_str() {
        "cpu" => runtime,
        backend => format!("{}, {runtime}", cut(backend, 16)),
    }
}

/// Traits that may distinguish columns of the same name, the most important first.
const TRAITS: [fn(&Column) -> String; 10] = [
    |c| match c.device.denied.as_slice() {
        [] => String::new(),
        denied => format!("without {}", cut(&denied.join(", "), 40)),
    },
    |c| match c.clock {
        Clock::Wall => String::new(),
        Clock::Device => "device clock".into(),
    },
    |c| cut(&c.software.version, 24),
    |c| c.software.commit.as_ref().map_or("commit unknown".into(), |commit| format!("commit {}", cut(commit, 13))),
    |c| cut(&format!("driver {}", c.device.driver), 40),
    |c| format!("wgpu {}", cut(&c.software.wgpu, 16)),
    |c| cut(&c.software.host, 40),
    |c| cut(&c.device.adapter, 60),
    |c| match c.device.subgroup {
        Some(size) => format!("subgroups of {size}"),
        None => "no subgroups".into(),
    },
    |c| cut(c.date.split('T').next().unwrap_or_default(), 10),
];
/// Traits for columns that no other trait distinguishes.
const LAST: [fn(&Column) -> String; 2] = [|c| cut(&c.file, 40), |c| format!("run {}", c.run + 1)];

/// Gives each column its label.
pub fn name(columns: &mut [Column]) {
    let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, column) in columns.iter_mut().enumerate() {
        column.label = format!("{}, {}", column.adapter, place(column));
        alike.entry(column.label.clone()).or_default().push(at);
    }
    // A denied feature and a device's clock are named even if there is only one column of that name.
    for column in columns.iter_mut() {
        for always in &TRAITS[..2] {
            append(column, &always(column));
        }
    }
    for group in alike.values() {
        for more in &TRAITS[2..] {
            tell(columns, group, *more);
        }
        for more in LAST {
            let mut labels: Vec<&str> = group.iter().map(|&at| columns[at].label.as_str()).collect();
            labels.sort_unstable();
            if labels.windows(2).any(|pair| pair[0] == pair[1]) {
                tell(columns, group, more);
            }
        }
    }
}

/// Adds a trait to the labels of a group, if the columns of the group differ in it.
fn tell(columns: &mut [Column], group: &[usize], what: fn(&Column) -> String) {
    let first = what(&columns[group[0]]);
    if group.iter().any(|&at| what(&columns[at]) != first) {
        for &at in group {
            let more = what(&columns[at]);
            append(&mut columns[at], &more);
        }
    }
}

fn append(column: &mut Column, more: &str) {
    if !more.is_empty() {
        column.label.push_str(", ");
        column.label.push_str(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        for (long, brief) in [
            ("llvmpipe (LLVM 19.1.7, 256 bits)", "llvmpipe"),
            ("Intel(R) Iris(R) Xe Graphics (TGL GT2)", "Intel Iris Xe Graphics"),
            ("ANGLE (Apple, Apple M3 Max, OpenGL 4.1)", "Apple M3 Max"),
            ("Google / SwiftShader Device (Subzero)", "SwiftShader Device"),
            ("cpu", "CPU"),
            (" ", "unnamed adapter"),
            ("(R)", "unnamed adapter"),
        ] {
            assert_eq!(short(long), brief);
        }
        assert_eq!(short(&"ä".repeat(100)).chars().count(), LONGEST);
    }
}
