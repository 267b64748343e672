//! The streaming decoder and the stop strings.

use nemoflash::{Error, StopMatcher};

use super::{Random, TEXTS, fables};

#[test]
fn stream_equals_decode() {
    let t = fables();
    let bytes: Vec<u32> = (0..256).filter_map(|b| t.id(&char::from_u32(b + 161).unwrap().to_string())).collect();
    let mut random = Random(3);
    let mut broken = 0;
    for i in 0..4000 {
        // The whole vocabulary, single bytes only (mostly broken characters), or split text.
        let ids: Vec<u32> = match i % 3 {
            0 => (0..random.below(60)).map(|_| random.below(t.vocab_size()) as u32).collect(),
            1 => (0..random.below(60)).map(|_| *random.pick(&bytes)).collect(),
            _ => {
                let mut ids = t.encode(TEXTS[i % TEXTS.len()], true).unwrap();
                let cut = random.below(ids.len());
                ids.rotate_left(cut);
                ids.truncate(random.below(ids.len() + 1));
                ids
            }
        };
        let skip = i % 2 == 0;
        let mut stream = t.stream(skip);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text += &stream.finish();
        assert_eq!(text, t.decode(&ids, skip), "{ids:?}");
        assert_eq!(stream.finish(), "", "it begins anew");
        // Negative control: decoding each token alone is wrong as soon as a character is split.
        let naive: String = ids.iter().map(|&id| t.decode(&[id], skip)).collect();
        broken += usize::from(naive != text);
    }
    assert!(broken > 400, "the sequences split characters: {broken}");
}

#[test]
fn stream_shows_characters_when_whole() {
    let t = fables();
    let ids = t.encode("é🙂", false).unwrap();
    let mut stream = t.stream(true);
    let shown: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(shown.concat(), "é🙂");
    assert!(shown.iter().all(|s| !s.contains('\u{FFFD}')));
    assert_eq!(stream.push(ids[0]), "");
    assert_eq!(stream.push(1 << 30), "", "an id without a token, in the middle of a character");
    assert_eq!(stream.finish(), "\u{FFFD}");
}

/// What to print and whether to stop, by looking at the whole text at every character.
fn stop_by_hand(stops: &[String], text: &str) -> (String, bool) {
    for end in 0..=text.len() {
        let head = &text.as_bytes()[..end];
        if let Some(stop) = stops.iter().filter(|s| head.ends_with(s.as_bytes())).max_by_key(|s| s.len()) {
            return (text[..end - stop.len()].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

#[test]
fn stops_are_found_at_every_split() {
    let strings = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    let mut cases = vec![
        (strings(&["\nUser:"]), "Hello.\n\nUser: and more".to_owned()),
        (strings(&["abcd", "bc"]), "xabcd".to_owned()),
        (strings(&["aab"]), "aaaaab".to_owned()),
        (strings(&["é🙂", "🙂🙂"]), "éé🙃🙂é🙂🙂".to_owned()),
        (strings(&["END"]), "no end, EN".to_owned()),
        (strings(&[]), "never".to_owned()),
    ];
    let mut random = Random(4);
    for _ in 0..300 {
        let letters = ["a", "b", "é"];
        let mut word = |n: usize| (0..1 + random.below(n)).map(|_| *random.pick(&letters)).collect::<String>();
        cases.push(((0..3).map(|_| word(4)).collect(), word(12)));
    }
    for (stops, text) in &cases {
        let want = stop_by_hand(stops, text);
        let chars: Vec<char> = text.chars().collect();
        let gaps = chars.len().saturating_sub(1);
        // Every way to cut a short text; every pair of cuts of a longer one.
        let cuts: Vec<u64> = match gaps <= 11 {
            true => (0..1 << gaps).collect(),
            false => (0..gaps).flat_map(|i| (0..gaps).map(move |j| 1 << i | 1 << j)).collect(),
        };
        for cut in cuts {
            let mut matcher = StopMatcher::new(stops.clone()).unwrap();
            let (mut shown, mut stopped, mut piece) = (String::new(), false, String::new());
            for (i, c) in chars.iter().enumerate() {
                piece.push(*c);
                if i == gaps || cut >> i & 1 == 1 {
                    let (text, now) = matcher.push(&piece);
                    assert!(!stopped || (text.is_empty() && now), "nothing follows a stop");
                    shown += &text;
                    stopped |= now;
                    piece.clear();
                }
            }
            shown += &matcher.finish();
            assert_eq!((shown, stopped), want, "{stops:?} in {text:?} cut at {cut:b}");
        }
    }
    // Negative control: looking at each piece alone misses a stop that is cut in two.
    assert!(["Hello.\nUs", "er:"].iter().all(|piece| !stop_by_hand(&cases[0].0, piece).1));
}

#[test]
fn only_the_beginning_of_a_stop_is_held() {
    let mut m = StopMatcher::new(vec!["\nUser:".to_owned()]).unwrap();
    assert_eq!(m.push("one\n"), ("one".to_owned(), false));
    assert_eq!(m.push("two"), ("\ntwo".to_owned(), false));
    assert_eq!(m.push("\nUse"), (String::new(), false));
    assert_eq!(m.finish(), "\nUse");
    assert_eq!(m.push("r: \nUser:x"), ("r: ".to_owned(), true));
    assert_eq!((m.push("y"), m.finish()), ((String::new(), true), String::new()));
}

#[test]
fn bad_stops_are_refused() {
    for stops in [vec![String::new()], vec!["x".repeat(5000)], vec!["x".to_owned(); 65]] {
        assert!(matches!(StopMatcher::new(stops), Err(Error::Parameter { name: "stop", .. })));
    }
}
