//! How much memory of this machine a model may take on the CPU.

use std::fs;

/// The share of the free memory that a model may take. The rest is left to other programs.
const SHARE: f64 = 0.75;

/// The bytes that all buffers on the CPU may take together. No limit (`u64::MAX`) if the system does not tell how much is free.
pub fn most() -> u64 {
    // A container has a limit of its own.
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let free: Option<u64> = group.into_iter().chain(machine).min();
    free.map_or(u64::MAX, |bytes| (bytes as f64 * SHARE) as u64)
}

/// The memory that Linux calls available, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read() {
        let text = "MemTotal:       24684096 kB\nMemFree:         7751900 kB\nMemAvailable:   23671052 kB\n";
        assert_eq!(available(text), Some(23_671_052 * 1024));
        for other in ["", "MemFree: 1 kB\n", "MemAvailable: some\n", "MemAvailable: 99999999999999999999 kB\n"] {
            assert_eq!(available(other), None, "{other}");
        }
        assert!(most() > 0);
    }
}
