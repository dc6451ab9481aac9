//! How a schedule ends: at rest, with nothing owed; or cut off.

use snitun::channel::ChannelKey;

use super::{Outcome, Tally, World};
use crate::reference::{CLIENT, End, SERVER};

impl World<'_> {
    /// Readers take everything, pipes flow: then all comes to rest, and soon.
    pub(super) fn settle(&mut self) {
        for channel in &mut self.reference.channels {
            channel.appetite = [100; 2];
        }
        let unsent = self.sides[0].out.len() + self.sides[1].out.len();
        let limit = 1000 + (unsent + self.budget.used()) / 16;
        for _ in 0..limit {
            let mut moved = false;
            for side in [SERVER, CLIENT] {
                let most = self.sides[side].out.len();
                self.send_up_to(side, most);
                moved |= !self.pipes[side].is_empty();
                let all = self.pipes[side].len();
                self.deliver_up_to(1 - side, all);
                for index in 0..self.reference.channels.len() {
                    while matches!(self.reference.channels[index].ends[side], End::Open | End::HungUp)
                        && self.take_from(side, index, usize::MAX) > 0
                    {
                        moved = true;
                    }
                }
            }
            self.check();
            if !moved && self.sides.iter().all(|side| side.out.is_empty()) {
                return;
            }
        }
        panic!("no rest after {limit} rounds");
    }

    /// At rest nothing is owed: neither bytes, nor a RESUME, nor an answer. And every open channel still works.
    pub(super) fn all_delivered(&mut self) {
        for round in 0..2 {
            for index in 0..self.reference.channels.len() {
                let channel = &self.reference.channels[index];
                if channel.ends[CLIENT] == End::Unborn {
                    assert!(channel.ends[SERVER] == End::Over && !self.anonymous, "a NEW got lost");
                    continue;
                }
                let open = channel.ends.map(|end| end == End::Open);
                assert_eq!(open[0], open[1], "channel {index}: one end lives on: {channel:?}");
                if !open[0] {
                    assert_eq!(channel.ends, [End::Over; 2], "channel {index} never ended");
                    continue;
                }
                for side in [SERVER, CLIENT] {
                    assert_eq!(
                        channel.got[side],
                        channel.sent[1 - side],
                        "channel {index}: bytes are missing"
                    );
                    let key = channel.keys[side].unwrap();
                    assert!(self.sides[side].mux.may_send(key), "channel {index}: nobody said RESUME");
                    assert!(!self.sides[side].mux.pauses(key));
                }
                if round == 0 {
                    self.write_to(SERVER, index, 100);
                    self.write_to(CLIENT, index, 200);
                }
            }
            self.settle();
        }
        assert!(self.reference.signals.iter().all(std::collections::VecDeque::is_empty), "a signal got lost");
        assert_eq!(self.reference.asked, [None; 2], "a question was not answered");
    }

    pub(super) fn close_all(&mut self) {
        for index in 0..self.reference.channels.len() {
            let side = self.chance.below(2);
            if self.reference.channels[index].ends[side] == End::Open {
                self.close_one(side, index);
            }
        }
        self.settle();
        assert_eq!(self.budget.used(), 0, "the budget is whole again");
        for _ in 0..40 {
            self.use_stale_key(SERVER);
            self.use_stale_key(CLIENT);
        }
        // Nothing is kept of the busy hours: numbers begin anew.
        self.refuses = 0;
        self.open();
        self.settle();
        let last = self.reference.channels.last().unwrap();
        assert_eq!(last.keys.map(|key| key.map(ChannelKey::slot)), [Some(0); 2], "slots are not freed");
        assert!(last.ends == [End::Open; 2]);
        self.use_stale_key(SERVER);
        self.use_stale_key(CLIENT);
    }

    /// The tunnel is cut: some of what was on its way still comes, then nothing.
    pub(super) fn lose(mut self) -> (Outcome, Tally) {
        for side in [SERVER, CLIENT] {
            let some = self.chance.below(self.pipes[1 - side].len() + 1);
            self.deliver_up_to(side, some);
        }
        self.check();
        let tally = Tally { lost: 1, ..self.tally() };
        let budget = self.budget.clone();
        drop(self);
        assert_eq!(budget.used(), 0, "a tunnel that is gone still costs");
        (Outcome::Lost, tally)
    }
}
