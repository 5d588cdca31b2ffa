//! What is done to the balancer while traffic runs.

use anyhow::{Result, ensure};

use super::judge::Watch;
use super::lab::SERVICES;

/// One step of the demo.
pub(super) struct Step {
    /// Its name in the JSON report.
    pub(super) name: &'static str,
    /// Its line in the log.
    pub(super) title: &'static str,
    /// Does it, and watches the traffic for the rest of its time.
    pub(super) act: fn(&mut Watch<'_>) -> Result<()>,
}

/// The backend that is added (all of these count from 0).
const ADDED: usize = 3;
/// The backend that is drained and removed.
const REMOVED: usize = 1;
/// The backend whose servers are killed.
const KILLED: usize = 2;

/// The steps, in order.
pub(super) const ALL: [Step; 9] = [
    Step { name: "spread", title: "three backends share the traffic", act: spread },
    Step { name: "add", title: "a fourth backend joins", act: add },
    Step { name: "drain", title: "a backend is drained", act: drain },
    Step { name: "remove", title: "the drained backend is removed", act: remove },
    Step { name: "strategy", title: "maglev becomes consistent-hash", act: strategy },
    Step { name: "kill", title: "a backend is killed", act: kill },
    Step { name: "return", title: "the backend comes back", act: come_back },
    Step { name: "restart", title: "the agent is stopped and started", act: restart },
    Step { name: "kill-agent", title: "the agent is killed and started", act: kill_agent },
];

fn spread(watch: &mut Watch<'_>) -> Result<()> {
    watch.observe()?;
    watch.expect_even(&[0, 1, 2]);
    Ok(())
}

fn add(watch: &mut Watch<'_>) -> Result<()> {
    watch.lab.add_backend(ADDED)?;
    watch.mark()?;
    watch.observe()?;
    watch.expect_even(&[0, 1, 2, ADDED]);
    watch.note(format!("{} is in", watch.lab.name(ADDED)));
    Ok(())
}

fn drain(watch: &mut Watch<'_>) -> Result<()> {
    watch.lab.drain_backend(REMOVED)?;
    watch.mark()?;
    watch.observe()?;
    watch.expect_nothing_new(REMOVED);
    watch.note(format!("{} gets nothing new and keeps what it has", watch.lab.name(REMOVED)));
    Ok(())
}

fn remove(watch: &mut Watch<'_>) -> Result<()> {
    watch.lab.remove_backend(REMOVED)?;
    watch.mark()?;
    watch.observe()?;
    watch.expect_even(&[0, 2, ADDED]);
    watch.note(format!("its clients hung up, {} is out", watch.lab.name(REMOVED)));
    Ok(())
}

fn strategy(watch: &mut Watch<'_>) -> Result<()> {
    watch.lab.set_strategy("consistent-hash")?;
    watch.mark()?;
    watch.observe()?;
    watch.expect_even(&[0, 2, ADDED]);
    let list = watch.lab.agent.json(["service", "list"])?;
    for service in SERVICES {
        let row = list.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == service.name));
        let strategy = row.map(|row| &row["strategy"]);
        ensure!(
            strategy.is_some_and(|strategy| strategy == "consistent-hash"),
            "`service list` gives the strategy of {} as {strategy:?}",
            service.name
        );
    }
    Ok(())
}

fn kill(watch: &mut Watch<'_>) -> Result<()> {
    let noticed = watch.lab.kill_backend(KILLED)?;
    watch.mark()?;
    watch.observe()?;
    watch.expect_nothing_new(KILLED);
    let name = watch.lab.name(KILLED);
    watch.note(format!("{name} was taken out after {:.1} s", noticed.as_secs_f64()));
    Ok(())
}

fn come_back(watch: &mut Watch<'_>) -> Result<()> {
    let noticed = watch.lab.revive_backend(KILLED)?;
    watch.mark()?;
    watch.observe()?;
    watch.expect_even(&[0, KILLED, ADDED]);
    let name = watch.lab.name(KILLED);
    watch.note(format!("{name} was back in after {:.1} s", noticed.as_secs_f64()));
    Ok(())
}

fn restart(watch: &mut Watch<'_>) -> Result<()> {
    watch.lab.agent.terminate()?;
    without_agent(watch)
}

fn kill_agent(watch: &mut Watch<'_>) -> Result<()> {
    watch.lab.agent.kill()?;
    without_agent(watch)
}

/// Half of the time without an agent, half with the one that took over.
fn without_agent(watch: &mut Watch<'_>) -> Result<()> {
    watch.mark()?;
    watch.observe_half()?;
    watch.expect_even(&[0, KILLED, ADDED]);
    watch.lab.agent.run()?;
    watch.mark()?;
    watch.observe()?;
    watch.expect_even(&[0, KILLED, ADDED]);
    let list = watch.lab.agent.json(["service", "list"])?;
    let services = list.as_array().map_or(0, Vec::len);
    ensure!(services == SERVICES.len(), "the agent came back with {services} services");
    watch.note("traffic went on without it".to_owned());
    Ok(())
}
