//! Watches the traffic during a step, and says which promises did not hold.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::lab::Lab;
use super::screen::Screen;
use super::steps::Step;
use crate::held::Lost;
use crate::tally::{Failure, Tally};
use crate::wait;

/// After the agent has reported a backend unhealthy, requests that were sent to it before may still fail.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// How often the counts on the screen change.
const REFRESH: Duration = Duration::from_millis(100);

/// What a step counted.
#[derive(Debug)]
pub(super) struct StepReport {
    pub(super) number: usize,
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Requests that ended during the step.
    pub(super) tally: Tally,
    /// Failed requests that nothing promised: they were with a backend that was dead and not yet found out.
    pub(super) excused: u64,
    /// What there is to say beside the counts.
    pub(super) note: Option<String>,
    /// Promises that did not hold.
    pub(super) broken: Vec<String>,
}

/// A step under way.
pub(super) struct Watch<'a> {
    pub(super) lab: &'a mut Lab,
    screen: &'a Screen,
    begin: Tally,
    /// The counts at the last [`Watch::mark`].
    mark: Tally,
    begun: Instant,
    /// How long the step may take.
    slice: Duration,
    report: StepReport,
}

/// Does one step and judges it.
pub(super) fn run_step(
    step: &Step,
    number: usize,
    slice: Duration,
    lab: &mut Lab,
    screen: &Screen,
) -> Result<StepReport> {
    let begun = Instant::now();
    let failed_before = lab.failures().len();
    let begin = lab.tally();
    let report = StepReport {
        number,
        name: step.name,
        title: step.title,
        tally: Tally::default(),
        excused: 0,
        note: None,
        broken: Vec::new(),
    };
    let mut watch = Watch { lab, screen, mark: begin.clone(), begin, begun, slice, report };
    watch.show_progress();
    (step.act)(&mut watch).with_context(|| format!("step {number} ({}) could not be done", step.name))?;
    watch.judge_connections(begun)?;
    watch.judge_failures(failed_before);
    Ok(watch.report)
}

impl Watch<'_> {
    /// From now on is when the step's change counts: for requests begun now, not for those under way.
    pub(super) fn mark(&mut self) -> Result<()> {
        self.lab.settle()?;
        self.mark = self.lab.tally();
        Ok(())
    }

    /// Lets the traffic run for what is left of the step, and half of the step at least.
    pub(super) fn observe(&mut self) -> Result<()> {
        let left = self.slice.saturating_sub(self.begun.elapsed());
        self.observe_for(left.max(self.slice / 2))
    }

    /// Lets the traffic run for half of the step.
    pub(super) fn observe_half(&mut self) -> Result<()> {
        self.observe_for(self.slice / 2)
    }

    fn observe_for(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.show_progress();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            wait::observe(left.min(REFRESH))?;
        }
    }

    /// Adds to the step's line.
    pub(super) fn note(&mut self, note: String) {
        self.report.note = Some(note);
    }

    /// Since the mark these backends, and no others, must have had the same share each.
    pub(super) fn expect_even(&mut self, backends: &[usize]) {
        let now = self.lab.tally().since(&self.mark);
        let names: Vec<String> = backends.iter().map(|&backend| self.lab.name(backend).to_owned()).collect();
        self.report.broken.extend(unevenness(&now, &names));
    }

    /// Since the mark the backend must have had nothing.
    pub(super) fn expect_nothing_new(&mut self, backend: usize) {
        let name = self.lab.name(backend);
        let answers = self.lab.tally().since(&self.mark).of(name);
        if answers > 0 {
            self.report.broken.push(format!("{name} still answered {answers} new requests"));
        }
    }

    fn judge_failures(&mut self, first: usize) {
        // The tally before the failures: one that comes in between is then judged in the next step.
        self.report.tally = self.lab.tally().since(&self.begin);
        let failures = self.lab.failures();
        let (excused, broken): (Vec<_>, Vec<_>) =
            failures.iter().skip(first).partition(|failure| is_excused(failure, self.lab));
        self.report.excused = excused.len() as u64;
        if let Some(example) = broken.first() {
            self.report.broken.push(format!("{} requests failed, such as {example}", broken.len()));
        }
    }

    fn judge_connections(&mut self, begun: Instant) -> Result<()> {
        let lost = self.lab.lost()?;
        let during = lost.iter().filter(|lost| lost.at >= begun && !is_with_the_dead(lost, self.lab));
        let during: Vec<_> = during.map(|lost| format!("one to {}: {}", lost.backend, lost.reason)).collect();
        if let Some(example) = during.first() {
            self.report
                .broken
                .push(format!("{} long-lived connections were lost, such as {example}", during.len()));
        }
        Ok(())
    }

    fn show_progress(&self) {
        self.screen.progress(self.report.number, self.report.title, &self.lab.tally().since(&self.begin));
    }
}

/// Whether the request was with a dead backend that the agent had not found out yet. A request that a *living* server
/// got and that failed all the same is a broken promise at any time.
fn is_excused(failure: &Failure, lab: &Lab) -> bool {
    lab.outages().iter().any(|outage| {
        let known = outage.noticed.map(|noticed| noticed + IN_FLIGHT);
        let began_in_time = known.is_none_or(|known| failure.started <= known);
        began_in_time
            && failure.ended >= outage.from
            && !lab.reached_a_living_backend(failure, outage.backend)
    })
}

/// Whether the connection broke because the server at its other end was killed.
fn is_with_the_dead(lost: &Lost, lab: &Lab) -> bool {
    let moved = lost.reason.starts_with("moved");
    lab.outages()
        .iter()
        .any(|outage| lab.name(outage.backend) == lost.backend && lost.at >= outage.from && !moved)
}

/// How many long-lived connections broke with the killed backend, and how many otherwise.
pub(super) fn count_lost(lab: &Lab) -> [usize; 2] {
    let lost = lab.lost().unwrap_or_default();
    let with_the_dead = lost.iter().filter(|lost| is_with_the_dead(lost, lab)).count();
    [with_the_dead, lost.len() - with_the_dead]
}

/// Deviations from equal shares that chance does not explain.
fn unevenness(tally: &Tally, names: &[String]) -> Vec<String> {
    let strangers = tally.spread.iter().filter(|&(name, _)| !names.contains(name));
    let mut deviations: Vec<_> =
        strangers.map(|(name, count)| format!("{name} answered {count} requests")).collect();
    let answers: u64 = tally.spread.values().sum();
    if answers == 0 {
        deviations.push("nothing was answered".to_owned());
        return deviations;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of a demo are far below 2^52")]
    let (fair, answers) = (1.0 / names.len() as f64, answers as f64);
    // Five standard deviations of a fair draw, and one point for the table's own unevenness.
    let tolerance = 5.0 * (fair * (1.0 - fair) / answers).sqrt() + 0.01;
    for name in names {
        let share = tally.share(name);
        if (share - fair).abs() > tolerance {
            deviations.push(format!("{name} had {:.1} % instead of {:.1} %", share * 100.0, fair * 100.0));
        }
    }
    deviations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(spread: &[(&str, u64)]) -> Tally {
        let spread = spread.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Tally { requests: 0, failed: 0, spread }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_chance_explains_is_even() {
        let found =
            unevenness(&tally(&[("b1", 1030), ("b2", 985), ("b3", 985)]), &names(&["b1", "b2", "b3"]));
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_starved_and_a_favoured_backend_are_named() {
        let found = unevenness(&tally(&[("b1", 2000), ("b2", 1000)]), &names(&["b1", "b2", "b3"]));
        assert_eq!(found, ["b1 had 66.7 % instead of 33.3 %", "b3 had 0.0 % instead of 33.3 %"]);
    }

    #[test]
    fn a_backend_that_should_have_nothing_is_named() {
        let found = unevenness(&tally(&[("b1", 1000), ("b2", 9)]), &names(&["b1"]));
        assert_eq!(found, ["b2 answered 9 requests"]);
    }

    #[test]
    fn silence_is_not_even() {
        assert_eq!(unevenness(&tally(&[]), &names(&["b1"])), ["nothing was answered"]);
    }
}
