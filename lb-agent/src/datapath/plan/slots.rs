//! Which table a service shall have, and where it is written.

use anyhow::bail;
use lb_common::service::{OnNoBackend, Table};
use lb_common::slot;

use super::diff::{Differ, Target};
use super::owners::{self, elements};
use super::{Action, TableInputs};
use crate::datapath::identity::Endpoint;
use crate::datapath::tables::{self, Member};
use crate::model::{self, Track};

impl Differ<'_> {
    /// The table word that a service shall have; plans to write the table where it is not the current one.
    pub(super) fn table(&mut self, target: &Target<'_>, current: Option<Table>) -> anyhow::Result<Table> {
        let on_no_backend = match target.service.on_no_backend {
            model::OnNoBackend::Reset => OnNoBackend::Reset,
            model::OnNoBackend::Drop => OnNoBackend::Drop,
        };
        let by_exception = target.service.track == Track::Exceptions;
        let index = tables::index(target.service.strategy);
        let word = |line, slots| Table::new(line, slots, index, on_no_backend);
        let inputs = inputs(target);
        let unchanged = self.known.get(&target.id) == Some(&inputs);
        self.plan.tables.insert(target.id, inputs.clone());
        if let (true, Some(current)) = (unchanged, current) {
            return Ok(word(current.line(), current.slots()));
        }
        let before = current
            .map(|table| self.arrays.table(table.line(), elements(table.slots(), by_exception)))
            .unwrap_or_default();
        let slots = match &inputs.keeping {
            None => tables::build(inputs.strategy, &inputs.members, self.table_size()),
            Some(keeping) => owners::change(&before, &inputs, keeping, self.table_size()),
        };
        if let Some(current) = current
            && slots == before
        {
            return Ok(word(current.line(), current.slots()));
        }
        self.say(describe(target, &inputs, &before, &slots));
        if slots.is_empty() {
            return Ok(word(0, 0));
        }
        let region = self.region()?;
        let count = slots.len() as u32 / elements(1, by_exception);
        let table = word(region * slot::lines(self.table_size()), count);
        self.act(Action::WriteTable { region, slots });
        Ok(table)
    }

    /// A slot region that no packet can be reading.
    fn region(&mut self) -> anyhow::Result<u32> {
        if self.now.rested.regions.is_empty() {
            self.grace_period();
        }
        match self.now.rested.regions.pop_first() {
            Some(region) => Ok(region),
            None => bail!(
                "no free slot region among {}: the tables contradict each other",
                self.arrays.sizes.regions()
            ),
        }
    }
}

fn inputs(target: &Target<'_>) -> TableInputs {
    let members = target
        .backends
        .iter()
        .map(|&(id, backend)| {
            let endpoint = Endpoint::new(backend.address, target.service.protocol);
            let weight = if backend.serving { backend.shares } else { 0 };
            Member { address: endpoint.address, port: endpoint.port, weight, id }
        })
        .collect();
    let keeping = (target.service.track == Track::Exceptions).then(|| {
        let serving = target.backends.iter().filter(|(_, backend)| backend.serving);
        serving.map(|(id, _)| *id).collect()
    });
    TableInputs { strategy: target.service.strategy, members, keeping }
}

fn describe(target: &Target<'_>, inputs: &TableInputs, before: &[u16], after: &[u16]) -> String {
    let name = &target.service.name;
    if after.is_empty() {
        return format!("service {name}: no backend takes new flows");
    }
    let strategy = inputs.strategy;
    let members = inputs.members.iter().filter(|member| member.weight > 0).count();
    let backends = if members == 1 { "backend" } else { "backends" };
    let moved = before.iter().zip(after).filter(|(old, new)| old != new).count();
    let moves = if before.is_empty() { String::new() } else { format!(" ({moved} slots move)") };
    format!("service {name}: {} slots built as {strategy} over {members} {backends}{moves}", after.len())
}
