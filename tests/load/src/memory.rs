//! Memory of another process.

use std::{fs, io};

/// Resident memory by the kernel's exact count, in KiB.
pub(crate) fn rss_kib(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other("smaps_rollup has no Rss line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_counted() {
        let before = rss_kib(std::process::id()).unwrap();
        let block = vec![1_u8; 32 << 20];
        assert!(rss_kib(std::process::id()).unwrap() >= before + (31 << 10));
        drop(block);
    }
}
