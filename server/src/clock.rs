//! The machine's clock, also while the machine is suspended.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use task_core::domain::Timestamp;
use task_core::ports::{Clock, SystemClock};

/// The clock that runs while the machine is suspended. Other systems than Linux have one of that name.
#[cfg(target_os = "linux")]
const UPTIME: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const UPTIME: ClockId = ClockId::Monotonic;

/// The machine's clock; its uptime counts the times for which the machine was suspended.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn uptime(&self) -> Duration {
        let time = clock_gettime(UPTIME);
        // The kernel counts both up from zero.
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanos)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_uptime_is_that_of_the_kernel_and_never_falls() {
        let shown = std::fs::read_to_string("/proc/uptime").expect("linux has it");
        let seconds = shown.split(' ').next().expect("two numbers");
        let kernel: f64 = seconds.parse().expect("a number");
        let first = MachineClock.uptime();
        assert!((first.as_secs_f64() - kernel).abs() < 5.0, "{first:?}");
        assert!(MachineClock.uptime() >= first);
    }
}
