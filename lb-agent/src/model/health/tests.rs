use proptest::option;
use proptest::prelude::*;

use super::*;

fn any_text(pattern: &'static str) -> impl Strategy<Value = Option<String>> {
    option::of(pattern)
}

fn any_request() -> impl Strategy<Value = HttpRequest> {
    let status = (100..=599_u16, 100..=599_u16)
        .prop_map(|(one, other)| format!("{}-{}", one.min(other), one.max(other)).parse().unwrap());
    let host = any_text("[a-z.,\\\\\"]{1,9}(:[0-9]{1,4})?");
    let body = any_text("[^\\p{Cc}]{1,20}")
        .prop_filter("short", |body| body.as_ref().is_none_or(|body| body.len() <= 256));
    ("[A-Z]{1,16}", "/[a-z,?=&%.]{0,20}", host, status, body)
        .prop_map(|(method, path, host, status, body)| HttpRequest { method, path, host, status, body })
}

fn any_datagram(from: usize) -> impl Strategy<Value = Datagram> {
    let printed = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    proptest::collection::vec(any::<u8>(), from..40).prop_map(move |bytes| printed(bytes).parse().unwrap())
}

fn any_action() -> impl Strategy<Value = CheckAction> {
    let tls = (any::<bool>(), any_text("[a-z]{1,5}\\.[a-z]{1,5}"))
        .prop_map(|(verify, sni)| TlsPolicy { verify, sni });
    prop_oneof![
        Just(CheckAction::Tcp),
        Just(CheckAction::Icmp),
        any_request().prop_map(CheckAction::Http),
        (any_request(), tls).prop_map(|(request, tls)| CheckAction::Https(request, tls)),
        "[!-~]{0,20}".prop_map(|service| CheckAction::Grpc { service }),
        (any_datagram(0), option::of(any_datagram(1)))
            .prop_map(|(send, expect)| CheckAction::Udp { send, expect }),
    ]
}

/// Any check that can be.
pub(crate) fn any_spec() -> impl Strategy<Value = HealthSpec> {
    let times = (100..=3_600_000_u64, 0.0..=1.0_f64, 0.0..=0.5_f64);
    (any_action(), times, 1..=100_u8, 1..=100_u8, any::<Option<NonZeroU16>>()).prop_map(
        |(action, (interval, share, jitter), rise, fall, port)| HealthSpec {
            interval: Period::from_millis(interval),
            timeout: Period::from_millis(10 + ((interval - 10) as f64 * share) as u64),
            jitter: Period::from_millis((interval as f64 * jitter) as u64),
            rise,
            fall,
            port: port.filter(|_| action != CheckAction::Icmp),
            action: Arc::new(action),
        },
    )
}

#[test]
fn absent_options_take_their_defaults() {
    let cases = [
        ("tcp", "tcp,interval=2s,timeout=1s,rise=2,fall=3"),
        ("tcp,interval=500ms,port=81", "tcp,interval=500ms,timeout=500ms,rise=2,fall=3,port=81"),
        ("icmp,jitter=1s", "icmp,interval=2s,timeout=1s,jitter=1s,rise=2,fall=3"),
        ("http", "http,interval=2s,timeout=1s,rise=2,fall=3,method=GET,path=/,status=200-399"),
        (
            r"http,path=/a\,b,host=x.example:8080,status=204,body=a\\b",
            r"http,interval=2s,timeout=1s,rise=2,fall=3,method=GET,path=/a\,b,host=x.example:8080,status=204,body=a\b",
        ),
        (
            "https,sni=x.example,verify=false",
            "https,interval=2s,timeout=1s,rise=2,fall=3,method=GET,path=/,status=200-399,verify=false,sni=x.example",
        ),
        ("grpc,service=", "grpc,interval=2s,timeout=1s,rise=2,fall=3"),
        (r"udp,send=ping\n", r"udp,interval=2s,timeout=1s,rise=2,fall=3,send=ping\n"),
    ];
    for (text, printed) in cases {
        assert_eq!(text.parse::<HealthSpec>().unwrap().to_string(), printed);
    }
    assert_eq!(Checks::default_of(Protocol::Tcp).to_string(), cases[0].1);
    assert_eq!(Checks::default_of(Protocol::Udp).to_string(), "none");
}

#[test]
fn each_bad_check_has_its_message() {
    let types = "tcp, http, https, grpc, udp, icmp, none";
    let cases = [
        ("smtp", format!("unknown health type `smtp`: valid are {types}")),
        ("", format!("unknown health type ``: valid are {types}")),
        ("none,rise=2", "health `none` stands alone: leave out the rest".into()),
        (
            "tcp,path=/x",
            "health type `tcp` has no option `path`: it has interval, timeout, jitter, rise, fall, port".into(),
        ),
        (
            "icmp,port=1",
            "health type `icmp` has no option `port`: it has interval, timeout, jitter, rise, fall".into(),
        ),
        (
            "udp,speed=1",
            "health type `udp` has no option `speed`: it has interval, timeout, jitter, rise, fall, port, send, expect".into(),
        ),
        ("tcp,", r"invalid health option ``: it is KEY=VALUE, and a comma within a value is written `\,`".into()),
        ("tcp,rise=0", "invalid health rise `0`: it is a whole number from 1 to 100".into()),
        ("tcp,fall=x", "invalid health fall `x`: it is a whole number from 1 to 100".into()),
        ("tcp,port=65536", "invalid health port `65536`: it is a whole number from 1 to 65535".into()),
        ("tcp,rise=2,rise=2", "health option `rise` is given twice".into()),
        ("http,path=/,path=/", "health option `path` is given twice".into()),
        (
            "tcp,interval=5",
            "health interval: invalid duration `5`: write a number with its unit, such as 500ms, 2s, 5m or 1h; at most 168h".into(),
        ),
        ("tcp,interval=10ms", "invalid health interval `10ms`: it is from 100ms to 1h".into()),
        ("tcp,timeout=3s", "invalid health timeout `3s`: it is from 10ms to the interval, `2s`".into()),
        ("tcp,jitter=1500ms", "invalid health jitter `1500ms`: it is at most half of the interval, `2s`".into()),
        ("http,method=get", "invalid health method `get`: it is 1 to 16 capital letters, such as GET".into()),
        ("http,path=x", "invalid health path `x`: it is / and what follows it in a URL, at most 1024 characters".into()),
        ("http,path=/ x", "invalid health path `/ x`: it is / and what follows it in a URL, at most 1024 characters".into()),
        ("http,host=a/b", "invalid health host `a/b`: it is a host's name, with a port where that matters".into()),
        ("http,status=99", "invalid health status `99`: it is a status, or a range such as 200-399, from 100 to 599".into()),
        ("http,status=300-200", "invalid health status `300-200`: it is a status, or a range such as 200-399, from 100 to 599".into()),
        ("http,body=", "invalid health body ``: it is 1 to 256 bytes of text without control characters".into()),
        ("https,verify=maybe", "invalid health verify `maybe`: it is true or false".into()),
        ("https,sni=a b", "invalid health sni `a b`: it is a host's name or address".into()),
        ("grpc,service=a b", "invalid health service `a b`: it is at most 255 visible ASCII characters".into()),
        ("udp", "health type `udp` needs the option `send`".into()),
        (
            r"udp,send=\x0",
            r"invalid health send `\x0`: it is at most 512 bytes, with \n, \r, \t, \0, \\ and \xNN for those that are no characters".into(),
        ),
        ("udp,send=a,expect=", "invalid health expect ``: it is at least one byte; leave it out where any answer will do".into()),
    ];
    for (text, message) in cases {
        let error = text.parse::<HealthArgument>().map(|argument| panic!("{argument:?}")).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_table_takes_what_the_word_takes() {
    let read = |text: &str| toml::from_str::<Checks>(text).map_err(|error| error.message().to_owned());
    let table = "type = \"https\"\nstatus = 204\nverify = false\nbody = \"a,b\"\npath = \"/x\"";
    let word: HealthArgument = r"https,status=204,verify=false,body=a\,b,path=/x".parse().unwrap();
    assert_eq!(read(table), Ok(Checks::new([word]).unwrap()));
    assert_eq!(
        read("type = \"tcp\"\nverify = true").unwrap_err(),
        "health type `tcp` has no option `verify`: it has interval, timeout, jitter, rise, fall, port"
    );
    assert!(read("type = \"tcp\"\ncolour = \"red\"").unwrap_err().starts_with("unknown field `colour`"));
    let json: Checks =
        serde_json::from_str(r#"{"type": "http", "status": "200-299", "host": null}"#).unwrap();
    assert!(json.to_string().ends_with("status=200-299"), "{json}");
}

#[test]
fn none_stands_alone_and_no_check_twice() {
    let tcp = HealthArgument::Check("tcp".parse().unwrap());
    assert_eq!(Checks::new([tcp.clone(), HealthArgument::None]), Err(InvalidHealth::NoneBeside));
    assert_eq!(
        Checks::new([tcp.clone(), tcp]).unwrap_err().to_string(),
        "health check `tcp,interval=2s,timeout=1s,rise=2,fall=3` is given twice"
    );
}

proptest! {
    #[test]
    fn every_check_survives_printing(spec in any_spec()) {
        prop_assert_eq!(spec.to_string().parse::<HealthSpec>(), Ok(spec.clone()));
        prop_assert_eq!(spec.action.to_string().parse::<CheckAction>(), Ok(CheckAction::clone(&spec.action)));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(tcp|https?|grpc|udp|icmp|none|.{0,5})(,[a-z]{0,8}=?[0-9a-z\\\\,/-]{0,6}){0,4}") {
        drop(text.parse::<HealthArgument>());
    }
}
