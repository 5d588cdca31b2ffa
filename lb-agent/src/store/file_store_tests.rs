use std::fs;
use std::time::{Duration, SystemTime};

use super::*;
use crate::model::{CheckAction, Desired, Removing, Weight, file};
use crate::store::simulated::Simulated;

const KEEP: usize = 3;

impl FileStore<Simulated> {
    /// A store on such a disk.
    pub(crate) fn simulated(disk: &Simulated, keep: usize) -> Result<Self, StoreError> {
        Self::over(Directory { path: "/state".into(), files: disk.clone() }, keep)
    }
}

/// A directory of one test's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-agent-store-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn open(&self) -> Result<FileStore, StoreError> {
        FileStore::open(&self.0, KEEP)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// With three revisions: 1, 2 and 3 have the weight of their number.
    fn with_three(name: &str) -> Self {
        let scratch = Self::new(name);
        let mut store = scratch.open().unwrap();
        for weight in 1..=3 {
            store.swap(u64::from(weight) - 1, Draft::new(state(weight))).unwrap();
        }
        scratch
    }

    /// What opening it says, with the directory's name left out.
    fn refusal(&self) -> String {
        let error = self.open().unwrap_err().to_string();
        error.replace(&self.0.display().to_string(), "DIR")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn state(weight: u16) -> Desired {
    let text = format!(
        "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n[[service.backend]]\naddress = \"10.0.1.1:80\"\nweight = {weight}\n"
    );
    let mut desired = file::parse(&text, "state").unwrap();
    let web = desired.service_mut(&"web".parse().unwrap()).unwrap();
    let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let removing = Removing { weight: Weight::from(3), backup: false, deadline };
    web.removing.insert("10.0.1.11:80".parse().unwrap(), removing);
    desired
}

fn weight(revision: &Revision) -> u32 {
    revision.desired.services.values().next().unwrap().backends.values().next().unwrap().weight.get()
}

#[test]
fn what_was_saved_is_there_for_the_next_agent_in_two_copies() {
    let scratch = Scratch::with_three("saved");
    let store = scratch.open().unwrap();
    assert_eq!(*store.latest().unwrap().desired, state(3));
    let text = |name| fs::read_to_string(scratch.file(name)).unwrap();
    assert_eq!(text("state.toml"), text("revisions/3.toml"));
    let mut left: Vec<_> = fs::read_dir(&scratch.0)
        .unwrap()
        .chain(fs::read_dir(scratch.file("revisions")).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["1.toml", "2.toml", "3.toml", "lock", "revisions", "state.toml"]);
}

#[test]
fn so_many_revisions_are_kept_as_was_said_and_each_can_be_read() {
    let scratch = Scratch::with_three("kept");
    let mut store = scratch.open().unwrap();
    store.swap(3, Draft::new(state(4))).unwrap();
    let numbers: Vec<_> = store.history().unwrap().iter().map(|info| info.revision).collect();
    assert_eq!(numbers, [4, 3, 2]);
    assert_eq!(weight(&store.revision(2).unwrap()), 2);
    assert_eq!(
        store.revision(1).unwrap_err().to_string(),
        "revision 1 is not kept: `lb-agent history` shows those that are"
    );
    assert!(!scratch.file("revisions/1.toml").exists());
}

#[test]
fn a_swap_against_another_revision_is_refused() {
    let scratch = Scratch::with_three("conflict");
    let mut store = scratch.open().unwrap();
    let error = store.swap(2, Draft::new(state(9))).unwrap_err().to_string();
    assert_eq!(error, "the state is at revision 3 by now, not 2");
    assert_eq!(weight(&store.latest().unwrap()), 3);
}

#[test]
fn whoever_watches_sees_the_latest_revision() {
    let scratch = Scratch::with_three("watch");
    let mut store = scratch.open().unwrap();
    let mut watch = store.watch();
    assert_eq!(*watch.borrow_and_update(), 3);
    store.swap(3, Draft::new(state(4))).unwrap();
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), 4);
}

#[test]
fn what_failed_is_there_for_the_next_agent_and_damage_is_no_obstacle() {
    let scratch = Scratch::new("failing-checks");
    let mut store = scratch.open().unwrap();
    assert_eq!(store.load_failing(), BTreeSet::new());
    let failing = [Failing { target: "10.0.1.11:80".parse().unwrap(), action: CheckAction::Tcp }].into();
    store.save_failing(&failing).unwrap();
    assert_eq!(store.load_failing(), failing);
    fs::write(scratch.file(VERDICTS), "nonsense").unwrap();
    assert_eq!(store.load_failing(), BTreeSet::new());
}

#[test]
fn a_second_agent_is_kept_out() {
    let scratch = Scratch::new("locked");
    let first = scratch.open().unwrap();
    assert_eq!(scratch.refusal(), "another lb-agent uses the state directory DIR: stop it first");
    assert!(FileStore::restore(&scratch.0, 1).is_err());
    drop(first);
    scratch.open().unwrap();
}

#[test]
fn damage_is_refused_with_its_place_and_the_way_back_and_left_alone() {
    let way_out =
        |number: u64| format!(" is in order: `lb-agent rollback {number} --state-dir DIR` goes back to it");
    let whole = |scratch: &Scratch| fs::read_to_string(scratch.file(STATE)).unwrap();
    type Damage = fn(&str) -> String;
    let cases: [(&str, Damage, &str); 4] = [
        (
            "cut",
            |text| text[..text.find("10.0.0.100").unwrap()].to_owned(),
            "DIR/state.toml line LINE, `vip = \"`: invalid basic string, expected `\"`",
        ),
        (
            "altered",
            |text| text.replace("weight = 3\nadmin", "weight = 9\nadmin"),
            "DIR/state.toml line LINE, `weight = 9`: it was written as `weight = 3`",
        ),
        (
            "short",
            |text| text[..text.find("[[service.backend]]").unwrap()].to_owned(),
            "DIR/state.toml line LINE, ``: it was written as `[[service.backend]]`",
        ),
        ("empty", |_| String::new(), "DIR/state.toml line LINE: missing key `version`"),
    ];
    for (name, damage, place) in cases {
        let scratch = Scratch::with_three(name);
        let sound = whole(&scratch);
        let damaged = damage(&sound);
        let lines = sound.lines().zip(damaged.lines().chain(std::iter::repeat("")));
        let line = 1 + lines.take_while(|(sound, damaged)| sound == damaged).count();
        let place = place.replace("LINE", &line.to_string());
        fs::write(scratch.file(STATE), &damaged).unwrap();
        let refusal = scratch.refusal();
        assert!(
            refusal.starts_with(&format!("the saved state is damaged: {place}: revision 3 of ")),
            "{refusal}"
        );
        assert!(refusal.ends_with(&way_out(3)), "{refusal}");
        assert_eq!(whole(&scratch), damaged, "left as it is");

        // The copy is damaged too: the one before is offered.
        fs::write(scratch.file("revisions/3.toml"), &damaged).unwrap();
        assert!(scratch.refusal().ends_with(&way_out(2)), "{}", scratch.refusal());
    }
}

#[test]
fn a_state_that_is_gone_is_damage_too_while_there_are_revisions() {
    let scratch = Scratch::with_three("gone");
    fs::remove_file(scratch.file(STATE)).unwrap();
    let refusal = scratch.refusal();
    assert!(
        refusal.starts_with("the saved state is damaged: DIR/state.toml is missing: revision 3 of "),
        "{refusal}"
    );
    fs::remove_dir_all(scratch.file(REVISIONS)).unwrap();
    assert_eq!(*scratch.open().unwrap().latest().unwrap().desired, Desired::default());
}

#[test]
fn damage_without_revisions_says_what_is_left_to_do() {
    let scratch = Scratch::new("alone");
    fs::write(scratch.file(STATE), "version = 1\n[[service]]\nname = \"we").unwrap();
    assert_eq!(
        scratch.refusal(),
        "the saved state is damaged: DIR/state.toml line 3, `name = \"we`: invalid basic string, expected `\"`: no earlier revision is kept: restore the file, or move it away to start with an empty state"
    );
}

#[test]
fn the_offered_way_back_works() {
    let scratch = Scratch::with_three("restore");
    fs::write(scratch.file(STATE), "nonsense").unwrap();
    assert_eq!(FileStore::kept(&scratch.0).unwrap().len(), 3);
    let made = FileStore::restore(&scratch.0, 2).unwrap();
    assert_eq!((made.info.revision, weight(&made)), (4, 2));
    assert_eq!(made.info.changes[0], "rollback to revision 2, without an agent");
    let store = scratch.open().unwrap();
    assert_eq!(*store.latest().unwrap().desired, state(2));
    assert_eq!(store.history().unwrap()[0].revision, 4);
    drop(store);
    let error = FileStore::restore(&scratch.0, 9).unwrap_err().to_string();
    assert_eq!(error, "revision 9 is not kept: `lb-agent history` shows those that are");
}

#[test]
fn an_earlier_versions_file_is_taken_over() {
    let scratch = Scratch::new("first-version");
    let text = format!("version = 1\n{}", file::print(&state(5)));
    fs::write(scratch.file(STATE), text).unwrap();
    let mut store = scratch.open().unwrap();
    assert_eq!((store.latest().unwrap().info.revision, weight(&store.latest().unwrap())), (0, 5));
    store.swap(0, Draft::new(state(6))).unwrap();
    drop(store);
    assert_eq!(weight(&scratch.open().unwrap().latest().unwrap()), 6);
}

#[test]
fn a_swap_that_fails_leaves_the_last_state() {
    let scratch = Scratch::with_three("failing");
    let mut store = scratch.open().unwrap();
    // A directory in the way of the temporary file: root is not stopped by permissions.
    fs::create_dir(scratch.file("state.toml.new")).unwrap();
    let error = store.swap(3, Draft::new(state(4))).unwrap_err().to_string();
    assert!(error.starts_with("cannot save the state to "), "{error}");
    assert_eq!(*store.latest().unwrap().desired, state(3));
    drop(store);
    assert_eq!(*scratch.open().unwrap().latest().unwrap().desired, state(3));
}
