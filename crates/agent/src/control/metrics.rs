//! `GET /metrics`: what the guest uses of what it has.

use std::fs;
use std::sync::Mutex;

use nix::sys::statvfs::statvfs;
use sandbar_wire::envd::control::Metrics;

/// Measures; remembers the processors' counters between two calls.
#[derive(Debug)]
pub(crate) struct Meter {
    before: Mutex<CpuTime>,
    disk_total_bytes: Option<u64>,
}

/// Ticks since the guest started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CpuTime {
    busy: u64,
    total: u64,
}

impl Meter {
    /// `disk_total_bytes` is what the host lets the guest write, where that is not the file system's own size.
    pub(crate) fn new(disk_total_bytes: Option<u64>) -> Self {
        Self { before: Mutex::new(cpu_time()), disk_total_bytes }
    }

    pub(crate) fn measure(&self) -> Metrics {
        let now = cpu_time();
        let before = {
            let mut before = self.before.lock().expect("nothing that holds this lock can panic");
            std::mem::replace(&mut *before, now)
        };
        let memory = Memory::parse(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
        let (disk_used, disk_total) = disk(self.disk_total_bytes);
        Metrics {
            ts: jiff::Timestamp::now().as_second(),
            cpu_count: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            cpu_used_pct: used_pct(before, now),
            mem_total_mib: memory.total >> 20,
            mem_used_mib: memory.used >> 20,
            mem_total: memory.total,
            mem_used: memory.used,
            mem_cache: memory.cache,
            disk_used,
            disk_total,
        }
    }
}

fn cpu_time() -> CpuTime {
    parse_cpu_time(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// The sum over all processors. Source: proc_stat(5); guest time is part of user time already.
fn parse_cpu_time(stat: &str) -> CpuTime {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
    let total = ticks.iter().sum();
    let idle = ticks.get(3).unwrap_or(&0) + ticks.get(4).unwrap_or(&0);
    CpuTime { busy: total - idle, total }
}

fn used_pct(before: CpuTime, now: CpuTime) -> f64 {
    let total = now.total.saturating_sub(before.total);
    if total == 0 {
        return 0.0;
    }
    let pct = 100.0 * now.busy.saturating_sub(before.busy) as f64 / total as f64;
    (pct.clamp(0.0, 100.0) * 100.0).round() / 100.0
}

/// Bytes.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    total: u64,
    used: u64,
    cache: u64,
}

impl Memory {
    fn parse(meminfo: &str) -> Self {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib: u64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
            kib * 1024
        };
        let total = field("MemTotal");
        let used = total.saturating_sub(field("MemAvailable"));
        Self { total, used, cache: field("Cached") + field("SReclaimable") }
    }
}

/// Used and total bytes of the root file system, `total` of them if that is given.
fn disk(total: Option<u64>) -> (u64, u64) {
    let Ok(root) = statvfs("/") else {
        return (0, total.unwrap_or(0));
    };
    let own_total = root.blocks() * root.fragment_size();
    let used = own_total.saturating_sub(root.blocks_available() * root.fragment_size());
    match total {
        // The file system tells of the host's disk where it is bigger than ours; how full that is means nothing.
        Some(total) if own_total > total + total / 8 => (0, total),
        Some(total) => (used.min(total), total),
        None => (used, own_total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_all_but_idle_and_waiting() {
        let time = parse_cpu_time("cpu  10 0 5 80 5 0 0 0 7 0\ncpu0 1 1 1 1\n");
        assert_eq!(time, CpuTime { busy: 15, total: 100 });
        assert_eq!(used_pct(CpuTime::default(), time), 15.0);
        assert_eq!(used_pct(time, time), 0.0);
        assert_eq!(parse_cpu_time(""), CpuTime::default());
    }

    #[test]
    fn used_memory_is_what_is_not_available() {
        let memory =
            Memory::parse("MemTotal: 100 kB\nMemAvailable:  60 kB\nCached: 7 kB\nSReclaimable: 1 kB\n");
        assert_eq!(memory, Memory { total: 100 << 10, used: 40 << 10, cache: 8 << 10 });
    }

    #[test]
    fn the_hosts_own_limit_is_the_total() {
        assert_eq!(disk(Some(1)).1, 1);
        let (used, total) = disk(None);
        assert!(used <= total && total > 0);
    }
}
