//! The time of day, for everything in this process that asks for it.
//!
//! A proxy's clock may be wrong, so nothing of it decides between proxies, and how long something takes is measured by
//! [`std::time::Instant`] wherever that matters. What is left: the end of a token, the dates of certificates, what logs,
//! metrics and reports say. A test gives a process a clock that is off by [`OFFSET_VARIABLE`].

use std::{
    ffi::OsStr,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Names the seconds by which the clock is off: `3600` is an hour fast, `-3600` an hour slow. For tests alone.
pub const OFFSET_VARIABLE: &str = "LATCHKEY_TEST_CLOCK_OFFSET";

/// A process has one clock.
static OFFSET: AtomicI64 = AtomicI64::new(0);

/// Takes what [`OFFSET_VARIABLE`] says; `Err` where that is no number of seconds.
pub fn set_from(value: Option<&OsStr>) -> Result<(), String> {
    let Some(value) = value else { return Ok(()) };
    let seconds = offset(value).ok_or_else(|| {
        format!("{OFFSET_VARIABLE}={}: has to be a number of seconds, e.g. -3600", value.display())
    })?;
    OFFSET.store(seconds, Ordering::Relaxed);
    tracing::warn!(seconds, "{OFFSET_VARIABLE} is set: the clock of this process is off, for a test");
    Ok(())
}

fn offset(value: &OsStr) -> Option<i64> {
    value.to_str()?.trim().parse().ok()
}

/// What time it is.
pub fn now() -> SystemTime {
    shifted(SystemTime::now(), OFFSET.load(Ordering::Relaxed))
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 { time.checked_sub(by) } else { time.checked_add(by) };
    shifted.unwrap_or(time)
}

/// How long ago that was; nothing for what lies ahead, since a clock may be set back.
pub fn since(time: SystemTime) -> Duration {
    now().duration_since(time).unwrap_or_default()
}

/// The time since 1970.
pub fn unix() -> Duration {
    now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same clock, for the dates of certificates.
#[cfg(feature = "operator")]
#[derive(Debug)]
pub struct CertificateTime;

#[cfg(feature = "operator")]
impl rustls::time_provider::TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(unix()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_is_said() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (said, then) in [("3600", 13_600), ("-3600", 6_400), (" 0 ", 10_000)] {
            assert_eq!(shifted(at(10_000), offset(said.as_ref()).unwrap()), at(then), "{said}");
        }
        assert!(set_from(Some("an hour".as_ref())).unwrap_err().contains("number of seconds"));
        assert_eq!(since(now() + Duration::from_mins(1)), Duration::ZERO);
    }
}
