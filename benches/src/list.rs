//! The tests of a benchmark. The same numbers give the same tests natively and in a web page.

use crate::report::{Kind, Test};
use serde::Deserialize;

/// The numbers from which tests are made, like the lists of llama-bench.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lists {
    /// Lengths of prompts (pp). 0 stands for none.
    pub prompts: Vec<u32>,
    /// Numbers of tokens that are decoded (tg). 0 stands for none.
    pub tokens: Vec<u32>,
    /// Prompt and decode in one test (pp+tg).
    pub pairs: Vec<(u32, u32)>,
    /// Numbers of tokens in front of what is timed (@ d).
    pub depths: Vec<u32>,
    /// Batch sizes: sequences at the same time (b).
    pub batches: Vec<u32>,
    /// Kinds of tests to leave out.
    pub skip: Vec<Kind>,
}

impl Lists {
    /// The tests, in the order in which they run.
    pub fn tests(&self) -> Vec<Test> {
        let some = |list: &[u32]| list.iter().copied().filter(|n| *n > 0).collect::<Vec<_>>();
        let (prompts, tokens) = (some(&self.prompts), some(&self.tokens));
        let mut tests = vec![Test::new(Kind::Load, 0, 0, 0, 1), Test::new(Kind::Compile, 0, 0, 0, 1)];
        tests.extend(prompts.first().map(|&prompt| Test::new(Kind::FirstToken, prompt, 1, 0, 1)));
        for &depth in &self.depths {
            for &batch in &self.batches {
                tests.extend(prompts.iter().map(|&prompt| Test::new(Kind::Prefill, prompt, 0, depth, batch)));
                tests.extend(tokens.iter().map(|&tokens| Test::new(Kind::Decode, 0, tokens, depth, batch)));
                let both = |&(prompt, tokens)| Test::new(Kind::EndToEnd, prompt, tokens, depth, batch);
                tests.extend(self.pairs.iter().map(both));
            }
        }
        tests.retain(|test| !self.skip.contains(&test.kind));
        tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_with_every_other() {
        let lists = Lists {
            prompts: vec![0, 8],
            tokens: vec![2, 3],
            pairs: vec![(5, 4)],
            depths: vec![0, 9],
            batches: vec![1, 2],
            skip: vec![],
        };
        let names = |lists: &Lists| lists.tests().into_iter().map(|test| test.name).collect::<Vec<_>>().join(", ");
        let each = ["", " b2", " @ d9", " @ d9 b2"];
        let each = each.map(|at| ["pp8", "tg2", "tg3", "pp5+tg4"].map(|name| name.to_owned() + at).join(", "));
        assert_eq!(names(&lists), format!("load, compile, first token, {}", each.join(", ")));
        let skip = vec![Kind::Load, Kind::Compile, Kind::FirstToken];
        assert_eq!(names(&Lists { skip, ..lists }), each.join(", "));
        assert_eq!(names(&Lists::default()), "load, compile");
    }
}
