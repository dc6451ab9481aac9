//! Agents that join, by way of a proxy.

use latchkey_operator::publish::Limits;
use operator_link::wire;
use operator_link::wire::enrolled::Outcome;
use operator_link::wire::{RefusalKind, from_proxy, to_proxy};

use crate::proxy::Proxy;
use crate::rig::Rig;

async fn ask(proxy: &Proxy, number: u64, token: &str) {
    let enrol = wire::Enrol { number, join_token: token.to_owned(), public_key_sha256: vec![7; 32] };
    proxy.send(from_proxy::Message::Enrol(enrol)).await;
}

async fn answer(proxy: &mut Proxy) -> (u64, Outcome) {
    let next = proxy.next().await.unwrap();
    let to_proxy::Message::Enrolled(enrolled) = next else { panic!("no answer, but {next:?}") };
    (enrolled.number, enrolled.outcome.unwrap())
}

fn kind(outcome: &Outcome) -> RefusalKind {
    let Outcome::Refusal(refusal) = outcome else { panic!("let in: {outcome:?}") };
    refusal.kind()
}

#[tokio::test]
async fn the_answer_has_the_number_of_the_question() {
    let rig = Rig::start(Limits { enrolments_per_proxy: 2, ..Limits::default() }).await;
    rig.publisher.lead(1);
    let mut proxy = rig.attach("proxy-0", 1).await;
    proxy.welcome().await;
    // Two are being looked at; the third is told to try again, and is the first to hear.
    for (number, token) in [(11, "let-me-in"), (12, "stolen"), (13, "let-me-in")] {
        ask(&proxy, number, token).await;
    }
    let (number, outcome) = answer(&mut proxy).await;
    assert_eq!((number, kind(&outcome)), (13, RefusalKind::Unavailable));
    rig.door.0.add_permits(2);
    let mut answers = [answer(&mut proxy).await, answer(&mut proxy).await];
    answers.sort_by_key(|(number, _)| *number);
    assert_eq!(answers[0], (11, Outcome::Instance("homes/house".to_owned())));
    assert_eq!((answers[1].0, kind(&answers[1].1)), (12, RefusalKind::Token));
    // There is room again.
    rig.door.0.add_permits(1);
    ask(&proxy, 14, "let-me-in").await;
    assert_eq!(answer(&mut proxy).await, (14, Outcome::Instance("homes/house".to_owned())));
    assert_eq!((rig.publisher.counters().enrolments, rig.publisher.counters().enrolments_put_off), (4, 1));
}

#[tokio::test]
async fn a_follower_lets_nobody_in() {
    let rig = Rig::start(Limits::default()).await;
    rig.door.0.add_permits(1);
    let mut proxy = rig.attach("proxy-0", 1).await;
    assert!(matches!(proxy.next().await.unwrap(), to_proxy::Message::NotLeader(_)));
    ask(&proxy, 1, "let-me-in").await;
    let (number, outcome) = answer(&mut proxy).await;
    assert_eq!((number, kind(&outcome)), (1, RefusalKind::Unavailable));
}
