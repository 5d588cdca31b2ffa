//! The kernel's clock, read through a program: userspace has no other way to the jiffies that rows are stamped with.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};

/// Name of the program that writes jiffies into the packet that it is run over.
pub(super) const PROGRAM: &str = "clock";

/// `CONFIG_HZ` as architectures offer it.
const USUAL: [u32; 4] = [100, 250, 300, 1000];
/// How long the clock is watched.
const WATCHED: Duration = Duration::from_millis(200);
/// Relative distance within which a measured rate is taken for a usual one. Wide, for a busy machine reads the clock
/// late; no two usual rates are nearer to each other than 250 and 300.
const TOLERANCE: f64 = 0.09;

/// Reads the clock.
pub(super) fn jiffies(program: &Xdp) -> anyhow::Result<u64> {
    // The shortest packet that the kernel lets a program be run over.
    let packet = [0; 14];
    let mut out = [0; 14];
    let options =
        TestRunOptions { data_in: Some(&packet), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result =
        program.test_run(options).map_err(|error| anyhow!("cannot read the kernel's clock: {error}"))?;
    ensure!(result.data_size_out >= 8, "cannot read the kernel's clock: {} bytes", result.data_size_out);
    let [a, b, c, d, e, f, g, h, ..] = out;
    Ok(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
}

/// Measures how many jiffies a second has.
pub(super) fn calibrate(program: &Xdp) -> anyhow::Result<u32> {
    // From one change of the clock to another, so that the measure is not short by up to a jiffy at each end.
    let (first, start) = next_change(program)?;
    std::thread::sleep(WATCHED);
    let (last, end) = next_change(program)?;
    let rate = last.wrapping_sub(first) as f64 / (end - start).as_secs_f64();
    nearest(rate).with_context(|| format!("the kernel's clock advances by {rate} a second"))
}

/// Waits for the clock to change: a few milliseconds.
fn next_change(program: &Xdp) -> anyhow::Result<(u64, Instant)> {
    let deadline = Instant::now() + Duration::from_secs(1);
    let before = jiffies(program)?;
    loop {
        let now = jiffies(program)?;
        if now != before {
            return Ok((now, Instant::now()));
        }
        ensure!(Instant::now() < deadline, "the kernel's clock stands still");
    }
}

/// The usual rate next to a measured one; any other as measured.
fn nearest(rate: f64) -> anyhow::Result<u32> {
    ensure!((10.0..100_000.0).contains(&rate), "no clock of a Linux kernel does");
    let usual = USUAL.into_iter().find(|&usual| (rate / f64::from(usual) - 1.0).abs() <= TOLERANCE);
    Ok(usual.unwrap_or(rate.round() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_snap_to_the_usual_ones() {
        let snapped: Vec<_> =
            [98.0, 249.1, 263.4, 301.0, 999.0, 24.0].map(|rate| nearest(rate).unwrap()).into();
        assert_eq!(snapped, [100, 250, 250, 300, 1000, 24]);
        assert!(nearest(0.0).is_err());
        assert!(nearest(f64::NAN).is_err());
    }
}
