//! The answer to a list, cut into its objects as it comes: a hundred thousand of them are never in memory as text. Pure:
//! pieces go in, objects come out.
//!
//! What is left when the objects are taken out is small, and JSON still: `{"items":[],"kind":"...","metadata":{...}}`.

/// Longest object that is taken. An API server takes none of more than 3 MiB.
const MAX_OBJECT: usize = 16 * 1024 * 1024;
/// Most of what is left.
const MAX_REST: usize = 1024 * 1024;

/// More than an API server ever tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer with {what} of more than {} MiB", .most / 1024 / 1024)]
pub(super) struct TooLong {
    what: &'static str,
    most: usize,
}

/// Cuts one answer.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// Brackets that are open.
    depth: usize,
    /// Is this in the list of objects, which is a member of the whole?
    in_list: bool,
    in_text: bool,
    is_escaped: bool,
    /// Of an object that came in several pieces, what has come.
    object: Vec<u8>,
    rest: Vec<u8>,
}

impl Cutter {
    /// Takes the next piece, and hands over each object that ends in it.
    pub(super) fn take(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        // From here on nothing has been handed over or kept.
        let mut start = 0;
        let mut next = 0;
        while let Some(at) = self.bracket(piece, next) {
            next = at + 1;
            let (was_list, was_object) = (self.in_list, self.is_in_object());
            self.pass(piece.get(at).copied().unwrap_or_default());
            if was_object && !self.is_in_object() {
                let end = piece.get(start..next).unwrap_or_default();
                if self.object.is_empty() {
                    each(end);
                } else {
                    self.object.extend_from_slice(end);
                    each(&self.object);
                    self.object.clear();
                }
                start = next;
            } else if !was_object && self.is_in_object() {
                self.keep(piece.get(start..at), true);
                start = at;
            } else if was_list != self.in_list {
                self.keep(piece.get(start..next), was_list);
                start = next;
            }
        }
        let left = piece.get(start..);
        if self.is_in_object() {
            self.object.extend_from_slice(left.unwrap_or_default());
        } else {
            self.keep(left, self.in_list);
        }
        for (what, has, most) in
            [("an object", self.object.len(), MAX_OBJECT), ("a rest", self.rest.len(), MAX_REST)]
        {
            if has > most {
                return Err(TooLong { what, most });
            }
        }
        Ok(())
    }

    /// What is left, once the answer has ended.
    pub(super) fn rest(&self) -> &[u8] {
        &self.rest
    }

    fn is_in_object(&self) -> bool {
        self.in_list && self.depth > 2
    }

    /// Keeps what belongs to no object. What stands between two is for nobody.
    fn keep(&mut self, bytes: Option<&[u8]>, between: bool) {
        let bytes = bytes.unwrap_or_default().iter();
        self.rest
            .extend(bytes.filter(|byte| !between || !matches!(byte, b',' | b' ' | b'\n' | b'\r' | b'\t')));
    }

    /// Where the next bracket is that is not part of a text.
    fn bracket(&mut self, piece: &[u8], mut from: usize) -> Option<usize> {
        loop {
            let rest = piece.get(from..).filter(|rest| !rest.is_empty())?;
            if self.is_escaped {
                self.is_escaped = false;
                from += 1;
            } else if self.in_text {
                let at = memchr::memchr2(b'"', b'\\', rest)?;
                self.is_escaped = rest.get(at) == Some(&b'\\');
                self.in_text = self.is_escaped;
                from += at + 1;
            } else {
                let matters = |byte: &u8| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
                let at = rest.iter().position(matters)?;
                if rest.get(at) != Some(&b'"') {
                    return Some(from + at);
                }
                self.in_text = true;
                from += at + 1;
            }
        }
    }

    fn pass(&mut self, bracket: u8) {
        if matches!(bracket, b'{' | b'[') {
            self.in_list |= self.depth == 1 && bracket == b'[';
            self.depth += 1;
        } else {
            self.depth = self.depth.saturating_sub(1);
            self.in_list &= self.depth > 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Everything in pieces of so many bytes: the objects, and the rest.
    fn cut(text: &str, size: usize) -> (Vec<Value>, Value) {
        let (mut cutter, mut objects) = (Cutter::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            cutter.take(piece, |object| objects.push(serde_json::from_slice(object).unwrap())).unwrap();
        }
        (objects, serde_json::from_slice(cutter.rest()).unwrap())
    }

    #[test]
    fn wherever_it_is_cut_the_objects_are_the_same() {
        let items = json!([
            {"metadata": {"name": "a\"]}\\", "list": [[{}], "]"]}}, {}, {"spec": {"deep": {"deeper": [1, {"x": "{"}]}}},
        ]);
        let list = json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"continue": "[{", "x": [1]}});
        let rest = json!({"apiVersion": "v1", "items": [], "kind": "List", "metadata": {"continue": "[{", "x": [1]}});
        for text in [list.to_string(), serde_json::to_string_pretty(&list).unwrap()] {
            for size in 1..=text.len() {
                assert_eq!(cut(&text, size), (items.as_array().unwrap().clone(), rest.clone()), "{size}");
            }
        }
    }

    #[test]
    fn an_answer_without_objects_is_all_rest() {
        let none = json!({"items": [], "metadata": {"resourceVersion": "7"}});
        assert_eq!(cut(&none.to_string(), 3), (vec![], none));
        let null = json!({"items": null, "metadata": {"resourceVersion": "7"}});
        assert_eq!(cut(&null.to_string(), 3), (vec![], null));
    }

    #[test]
    fn what_is_no_object_makes_no_sense_of_the_rest() {
        let mut cutter = Cutter::default();
        cutter.take(br#"{"items": [{}, 7 8, {}]}"#, |_| ()).unwrap();
        assert!(
            serde_json::from_slice::<Value>(cutter.rest()).is_ok_and(|rest| rest["items"] == json!([78]))
        );
        assert!(Cutter::default().take(b"}}]]\"", |_| ()).is_ok());
    }

    #[test]
    fn nothing_is_kept_without_end() {
        let mut cutter = Cutter::default();
        let mut endless = |piece: &[u8]| (0..20).try_for_each(|_| cutter.take(piece, |_| ()));
        endless(br#"{"items": [{"a": ""#).unwrap();
        let long = vec![b'x'; 1024 * 1024];
        assert_eq!(endless(&long), Err(TooLong { what: "an object", most: MAX_OBJECT }));
        let mut cutter = Cutter::default();
        cutter.take(&long, |_| ()).unwrap();
        assert_eq!(cutter.take(b"x", |_| ()), Err(TooLong { what: "a rest", most: MAX_REST }));
    }
}
