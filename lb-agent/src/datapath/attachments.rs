//! The configured interfaces and what runs on them: as they come, go, and lose and find their links.

use super::InterfaceStatus;
use super::netlink::Interface;

/// Puts the program on an interface; whether it runs in the driver.
pub(super) type Attach<'a> = dyn FnMut(&Interface) -> anyhow::Result<bool> + 'a;

/// Every configured interface.
#[derive(Debug, Default)]
pub(super) struct Attachments(Vec<Attachment>);

#[derive(Debug)]
struct Attachment {
    /// The interface that runs the program, while one does: of that name there can be another one tomorrow.
    index: Option<u32>,
    status: InterfaceStatus,
}

impl Attachments {
    /// Interfaces of these names, none of which runs the program yet.
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for name in names {
            if all.0.iter().all(|known| known.status.name != name) {
                let status = InterfaceStatus { name: name.to_owned(), ..InterfaceStatus::default() };
                all.0.push(Attachment { index: None, status });
            }
        }
        all
    }

    /// How each of them is.
    pub(super) fn statuses(&self) -> Vec<InterfaceStatus> {
        self.0.iter().map(|each| each.status.clone()).collect()
    }

    /// The first that runs the program.
    pub(super) fn first(&self) -> Option<u32> {
        self.0.iter().find_map(|each| each.index)
    }

    /// Indices of those that run the program.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.0.iter().filter_map(|each| each.index).collect()
    }

    /// Looks at the interfaces that there are, and has `attach` put `program` where it does not run. Those that are
    /// other than before are returned.
    pub(super) fn follow(
        &mut self,
        all: &[Interface],
        program: u32,
        attach: &mut Attach<'_>,
    ) -> Vec<InterfaceStatus> {
        let look = |each: &mut Attachment| {
            let found = all.iter().find(|interface| interface.name == each.status.name);
            let before = each.status.clone();
            each.look(found, program, attach);
            (each.status != before).then(|| each.status.clone())
        };
        self.0.iter_mut().filter_map(look).collect()
    }
}

impl Attachment {
    fn look(&mut self, found: Option<&Interface>, program: u32, attach: &mut Attach<'_>) {
        let Some(interface) = found else {
            let problem = "there is none of that name: it is attached when it appears".to_owned();
            return self.lose(problem);
        };
        let runs_program = interface.xdp.is_some_and(|attached| attached.id == program);
        if self.index != Some(interface.index) || !runs_program {
            match attach(interface) {
                Ok(native) => {
                    self.index = Some(interface.index);
                    self.status.mode = if native { "native" } else { "generic" }.to_owned();
                }
                Err(error) => return self.lose(format!("{error:#}")),
            }
        }
        self.status.problem = match (interface.is_up, interface.has_link) {
            (false, _) => Some(format!("it is down: ip link set dev {} up", interface.name)),
            (true, false) => Some("it has no link: look at its other end".to_owned()),
            (true, true) => None,
        };
    }

    fn lose(&mut self, problem: String) {
        self.index = None;
        self.status.mode = InterfaceStatus::default().mode;
        self.status.problem = Some(problem);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::datapath::netlink::AttachedProgram;

    const PROGRAM: u32 = 7;

    fn interface(index: u32, has_link: bool, program: Option<u32>) -> Interface {
        let xdp = program.map(|id| AttachedProgram { id, native: true });
        Interface { index, name: "eth0".to_owned(), is_up: true, has_link, xdp, ..Interface::default() }
    }

    /// What it takes to attach, and what becomes of it: the mode, or the problem.
    fn follow(all: &mut Attachments, now: &[Interface]) -> (usize, Vec<Result<String, String>>) {
        let mut attached = 0;
        let changed = all.follow(now, PROGRAM, &mut |interface| {
            attached += 1;
            if interface.xdp.is_some_and(|other| other.id != PROGRAM) {
                bail!("occupied");
            }
            Ok(true)
        });
        (attached, changed.into_iter().map(|status| status.problem.map_or(Ok(status.mode), Err)).collect())
    }

    #[test]
    fn an_interface_is_attached_once_and_again_when_it_is_another() {
        let mut all = Attachments::new(["eth0", "eth0"]);
        assert_eq!(all.statuses().len(), 1);
        let absent = "there is none of that name: it is attached when it appears".to_owned();
        assert_eq!(follow(&mut all, &[]), (0, vec![Err(absent.clone())]));
        assert_eq!(follow(&mut all, &[]), (0, Vec::new()), "told once");
        let running = interface(3, true, Some(PROGRAM));
        assert_eq!(follow(&mut all, &[interface(3, true, None)]), (1, vec![Ok("native".to_owned())]));
        assert_eq!(follow(&mut all, std::slice::from_ref(&running)), (0, Vec::new()));
        assert_eq!((all.first(), all.indices()), (Some(3), vec![3]));
        // Made anew under its name; taken off by force; gone.
        assert_eq!(follow(&mut all, &[interface(4, true, None)]).0, 1);
        assert_eq!(follow(&mut all, &[interface(4, true, None)]).0, 1);
        assert_eq!(follow(&mut all, &[]), (0, vec![Err(absent)]));
        assert_eq!(all.first(), None);
    }

    #[test]
    fn a_lost_link_is_told_and_so_is_its_return() {
        let mut all = Attachments::new(["eth0"]);
        follow(&mut all, &[interface(3, true, None)]);
        let lost = Err("it has no link: look at its other end".to_owned());
        assert_eq!(follow(&mut all, &[interface(3, false, Some(PROGRAM))]), (0, vec![lost]));
        let down = Interface { is_up: false, ..interface(3, false, Some(PROGRAM)) };
        let told = Err("it is down: ip link set dev eth0 up".to_owned());
        assert_eq!(follow(&mut all, &[down]), (0, vec![told]));
        let back = vec![Ok("native".to_owned())];
        assert_eq!(follow(&mut all, &[interface(3, true, Some(PROGRAM))]), (0, back));
    }

    #[test]
    fn an_interface_that_refuses_is_tried_again_and_told_once() {
        let mut all = Attachments::new(["eth0"]);
        let foreign = interface(3, true, Some(8));
        assert_eq!(follow(&mut all, std::slice::from_ref(&foreign)), (1, vec![Err("occupied".to_owned())]));
        assert_eq!(follow(&mut all, &[foreign]), (1, Vec::new()));
        assert_eq!(all.statuses()[0].mode, "none");
        assert_eq!(follow(&mut all, &[interface(3, true, None)]).0, 1);
    }
}
