//! What is set for a service besides its table: one word, written at once.

use lb_common::service::Options;
use lb_common::settings::Settings;

use super::Action;
use super::diff::{Differ, Target};
use crate::datapath::WantedService;
use crate::model::{OnBackendDown, Track};

impl Differ<'_> {
    /// Gives services in use the options that they shall have. Before backends go, whose flows meet them.
    pub(super) fn set_options(&mut self, targets: &[Target<'_>]) {
        for target in targets {
            let options = options(target.service, self.arrays.settings());
            let Some(service) = self.now.services.get_mut(&target.vip) else { continue };
            if service.options != options {
                service.options = options;
                self.act(Action::SetOptions { service: target.id, options });
            }
        }
    }
}

/// The options of a service.
pub(super) fn options(service: &WantedService, settings: &Settings) -> Options {
    let mut options = Options::default();
    if service.on_backend_down == OnBackendDown::Reset {
        options = options.with(Options::RESET_ON_BACKEND_DOWN);
    }
    if service.track == Track::Exceptions {
        options = options.with(Options::EXCEPTIONS);
    }
    if let Some(period) = service.affinity.period() {
        options = options.with_affinity(settings.ticks(period.duration().as_millis() as u64));
    }
    options
}
