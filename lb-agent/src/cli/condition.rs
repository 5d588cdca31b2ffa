//! The condition on which a change is made.

use clap::Args;

use crate::client::Call;

/// On which condition.
#[derive(Debug, Args)]
pub(super) struct Condition {
    /// Refuses if what is changed is not at that revision any more: nobody's change is overwritten unseen.
    ///
    /// `-o json` shows it: of a service (its backends count as part of it) as `revision` in `service show`, of the state
    /// in `status`.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
}

impl Condition {
    /// The request, on that condition.
    pub(super) fn on<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.if_revision(self.if_revision)
    }
}
