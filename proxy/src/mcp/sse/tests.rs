use proptest::prelude::*;

use super::*;

fn split(text: &[u8]) -> Vec<Event> {
    Splitter::new(1 << 20).feed(text).unwrap()
}

fn data(text: &'static str) -> Event {
    Event { data: Bytes::from_static(text.as_bytes()), ..Event::default() }
}

#[test]
fn fields_lines_and_comments_are_read_as_the_standard_has_them() {
    let text = "\u{feff}: hello\nevent: message\nid:7\nretry: 1500\ndata: a\ndata:  b\ndata\n\ndata:x\n\n";
    let first = Event {
        event: Some("message".into()),
        id: Some("7".into()),
        retry: Some(1500),
        data: Bytes::from_static(b"a\n b\n"),
    };
    assert_eq!(split(text.as_bytes()), [first, data("x")]);
}

#[test]
fn every_line_end_counts_once() {
    for end in ["\n", "\r", "\r\n"] {
        assert_eq!(
            split(format!("data: a{end}{end}data: b{end}{end}").as_bytes())[..1],
            [data("a")],
            "{end:?}"
        );
    }
    let mut splitter = Splitter::new(100);
    assert_eq!(splitter.feed(b"data: a\r").unwrap(), []);
    assert_eq!(splitter.feed(b"\n\r").unwrap(), [data("a")]);
    assert_eq!(splitter.feed(b"\ndata: b\r\n\r\n").unwrap(), [data("b")]);
}

#[test]
fn keep_alives_are_no_events_and_priming_events_are() {
    assert_eq!(split(&[KEEP_ALIVE, KEEP_ALIVE].concat()), []);
    let primed = split(&priming("s-1", Some(3000)));
    assert_eq!(primed, [Event { id: Some("s-1".into()), retry: Some(3000), ..Event::default() }]);
}

#[test]
fn an_id_with_nul_and_a_retry_that_is_no_number_are_ignored() {
    assert_eq!(split(b"id: a\0b\nretry: 1s\ndata: x\n\n"), [data("x")]);
}

#[test]
fn names_cannot_break_out_of_their_line() {
    let text = encode(Some("message\ndata: forged"), Some("1\r\n\r\n"), b"{}");
    assert_eq!(split(&text).len(), 1);
}

#[test]
fn threat_sse_bomb_an_event_without_end_is_cut_at_the_limit() {
    for piece in ["x", "data: x\n", "data: y\r\n", "id: zz\ndata:", ": "] {
        let mut splitter = Splitter::new(1000);
        let piece = piece.repeat(50);
        let failed = (0..100).position(|_| splitter.feed(piece.as_bytes()).is_err());
        assert!(failed.is_some_and(|at| at * piece.len() <= 8000), "{piece:.8}");
    }
    let mut splitter = Splitter::new(1000);
    assert!((0..100_000).all(|_| splitter.feed(b": comment\n").is_ok()));
}

/// The standard's algorithm on the whole text at once.
fn model(text: &str) -> Vec<Event> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<_> = text.split('\n').collect();
    lines.pop();
    let (mut events, mut event, mut lines_of_data) = (Vec::new(), Event::default(), Vec::new());
    for line in lines {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            _ if line.is_empty() => {
                let data = Bytes::from(lines_of_data.join("\n"));
                let done = Event { data, ..std::mem::take(&mut event) };
                let done = Event { event: done.event.filter(|name| !name.is_empty()), ..done };
                if !lines_of_data.is_empty() || done.id.is_some() || done.retry.is_some() {
                    events.push(done);
                }
                lines_of_data.clear();
            }
            "data" => lines_of_data.push(value.to_owned()),
            "event" => event.event = Some(value.to_owned()),
            "id" if !value.contains('\0') => event.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                event.retry = value.parse().ok();
            }
            _ => {}
        }
    }
    events
}

proptest! {
    #[test]
    fn any_chunking_gives_the_models_events(
        parts in prop::collection::vec(prop_oneof![
            Just("\n".to_owned()), Just("\r".to_owned()), Just("\r\n".to_owned()), Just("\u{feff}".to_owned()),
            Just("data".to_owned()), Just("id:".to_owned()), Just("event: ".to_owned()), Just("retry:".to_owned()),
            "[a-z0-9: \0\u{e9}]{0,4}",
        ], 0..40),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let text = parts.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let mut splitter = Splitter::new(1 << 16);
        let mut events = Vec::new();
        for pair in cuts.windows(2) {
            events.extend(splitter.feed(&text.as_bytes()[pair[0]..pair[1]]).unwrap());
        }
        prop_assert_eq!(events, model(&text));
    }

    #[test]
    fn an_encoded_event_comes_back(event in prop::option::of("[a-z]{1,8}"), id in prop::option::of("[a-z0-9-]{1,8}"), data in "[a-z{}\n]{0,20}") {
        let events = split(&encode(event.as_deref(), id.as_deref(), data.as_bytes()));
        prop_assert_eq!(events, [Event { event, id, retry: None, data: Bytes::from(data) }]);
    }
}
