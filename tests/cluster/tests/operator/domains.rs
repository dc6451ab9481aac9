//! Custom domains against a real DNS server.

use std::sync::Arc;
use std::time::Duration;

use latchkey_cluster_tests::{NameServer, Suite, TestError};
use latchkey_operator::domains::{Prover, Settings, Timing, Wanted};
use libtest_mimic::Trial;
use planner::{Proof, ProofAnswer};
use tokio::time::{Instant, timeout};

/// Looks come every few hundred milliseconds here.
const WITHIN: Duration = Duration::from_secs(20);
const VALUE: &str = "latchkey-verification=met4co26cunebg6tkxjs6zlu5nzxv5n2";
const RANDOM: &str = "p5n2met4co26cunebg6tkxjs6zlu5nzx.ui.example.org";

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("domains::a_record_appears_and_goes", |_| a_record_appears_and_goes()),
        suite.test("domains::records_in_other_forms", |_| records_in_other_forms()),
        suite.test("domains::trouble_takes_nothing_away", |_| trouble_takes_nothing_away()),
        suite.test("domains::many_at_once_are_no_flood", |_| many_at_once_are_no_flood()),
    ]
}

/// As in production, only faster.
fn settings(server: &NameServer) -> Settings {
    Settings {
        name_servers: vec![server.address()],
        time_out: Duration::from_millis(500),
        timing: Timing {
            pending: Duration::from_millis(100),
            pending_longest: Duration::from_millis(400),
            pending_remembered: Duration::ZERO,
            proven: Duration::from_millis(400),
            denied: Duration::from_secs(2),
            denied_longest: Duration::from_secs(2),
            trouble: Duration::from_millis(100),
            trouble_longest: Duration::from_millis(400),
        },
        ..Settings::default()
    }
}

fn wanted(domain: &str) -> Arc<Wanted> {
    Arc::new(Wanted {
        domain: domain.parse().unwrap(),
        id: "homes/lake".parse().unwrap(),
        txt_name: format!("_latchkey.{domain}"),
        txt_value: VALUE.to_owned(),
        cname_target: RANDOM.parse().unwrap(),
    })
}

fn proof(prover: &Prover, domain: &str) -> Option<Proof> {
    prover.proofs().get(&(domain.parse().unwrap(), "homes/lake".parse().unwrap())).cloned()
}

/// Waits until a domain's proof is as it should be.
async fn until(prover: &Prover, domain: &str, fits: impl Fn(&Proof) -> bool) -> Result<Proof, TestError> {
    let mut changes = prover.subscribe();
    let waiting = async {
        loop {
            if let Some(proof) = proof(prover, domain)
                && fits(&proof)
            {
                return proof;
            }
            changes.changed().await.unwrap();
        }
    };
    let waited = timeout(WITHIN, waiting).await;
    waited.map_err(|_| format!("{domain}: {:?}", proof(prover, domain)).into())
}

fn is(answer: ProofAnswer) -> impl Fn(&Proof) -> bool {
    move |proof| proof.answer.is_some_and(|(found, _)| found == answer)
}

async fn a_record_appears_and_goes() -> Result<(), TestError> {
    let mut server = NameServer::start().await?;
    let prover = Prover::start(settings(&server))?;
    prover.want(vec![wanted("home.example.com")]);
    let pending = until(&prover, "home.example.com", is(ProofAnswer::Missing)).await?;
    assert!(pending.missing_since.is_some() && pending.trouble.is_none(), "{pending:?}");

    server.set_records(&format!("_latchkey.home 1 IN TXT \"{VALUE}\""))?;
    let shown = until(&prover, "home.example.com", is(ProofAnswer::Txt)).await?;
    assert_eq!((shown.missing_since, &shown.trouble), (None, &None));

    server.set_records("")?;
    let denied = until(&prover, "home.example.com", is(ProofAnswer::Missing)).await?;
    let (_, first) = denied.answer.unwrap();
    assert_eq!(denied.missing_since, Some(first), "the first look after the removal");
    let again = until(&prover, "home.example.com", |proof| proof.answer.unwrap().1 > first).await?;
    assert_eq!(again.missing_since, Some(first));
    assert!(again.answer.unwrap().1.0 - first.0 >= 2, "{again:?}: the second look, when it was due");

    // A CNAME this time.
    server.set_records(&format!("home 1 IN CNAME {RANDOM}."))?;
    let shown = until(&prover, "home.example.com", is(ProofAnswer::Cname)).await?;
    assert_eq!(shown.missing_since, None);

    prover.want(Vec::new());
    let mut changes = prover.subscribe();
    timeout(WITHIN, async {
        while !prover.proofs().is_empty() {
            changes.changed().await.unwrap();
        }
    })
    .await?;
    Ok(())
}

async fn records_in_other_forms() -> Result<(), TestError> {
    let mut server = NameServer::start().await?;
    let (front, back) = VALUE.split_at(20);
    server.set_records(&format!(
        "_latchkey.parts 1 IN TXT \"{front}\" \"{back}\"\n\
         _latchkey.several 1 IN TXT \"v=spf1 -all\"\n_latchkey.several 1 IN TXT \"{VALUE}\"\n\
         _latchkey.kept 1 IN CNAME records\nrecords 1 IN TXT \"{VALUE}\"\n\
         *.wild 1 IN CNAME {RANDOM}.\n\
         shouted 1 IN CNAME {}.\n\
         _latchkey.others 1 IN TXT \"{VALUE}x\"\nothers 1 IN CNAME other.ui.example.org.\n\
         steps 1 IN CNAME shouted\n\
         address 1 IN A 192.0.2.1",
        RANDOM.to_uppercase()
    ))?;
    let prover = Prover::start(settings(&server))?;
    let expected = [
        ("parts.example.com", ProofAnswer::Txt),
        ("several.example.com", ProofAnswer::Txt),
        ("kept.example.com", ProofAnswer::Txt),
        ("any.wild.example.com", ProofAnswer::Cname),
        ("shouted.example.com", ProofAnswer::Cname),
        ("others.example.com", ProofAnswer::Missing),
        ("steps.example.com", ProofAnswer::Missing),
        ("address.example.com", ProofAnswer::Missing),
        ("nothing.example.com", ProofAnswer::Missing),
    ];
    prover.want(expected.iter().map(|(domain, _)| wanted(domain)).collect());
    for (domain, answer) in expected {
        // The zone may have come a moment after the first look.
        until(&prover, domain, is(answer)).await?;
    }
    Ok(())
}

async fn trouble_takes_nothing_away() -> Result<(), TestError> {
    let mut server = NameServer::start().await?;
    server.set_records(&format!("_latchkey.home 1 IN TXT \"{VALUE}\""))?;
    let prover = Prover::start(settings(&server))?;
    prover.want(["home.example.com", "a.broken.example.net", "a.example.net"].map(wanted).into());
    let shown = until(&prover, "home.example.com", is(ProofAnswer::Txt)).await?;

    let broken = until(&prover, "a.broken.example.net", |proof| proof.trouble.is_some()).await?;
    assert!(broken.trouble.as_ref().unwrap().contains("SERVFAIL"), "{broken:?}");
    let refused = until(&prover, "a.example.net", |proof| proof.trouble.is_some()).await?;
    assert!(refused.trouble.as_ref().unwrap().contains("REFUSED"), "{refused:?}");
    for proof in [broken, refused] {
        assert_eq!((proof.answer, proof.missing_since), (None, None));
    }

    server.stop();
    let alone = until(&prover, "home.example.com", |proof| proof.trouble.is_some()).await?;
    assert_eq!((alone.answer, alone.missing_since), (shown.answer, None), "the proof stays");
    server.resume().await?;
    let back = until(&prover, "home.example.com", |proof| proof.trouble.is_none()).await?;
    assert_eq!(back, shown);
    Ok(())
}

async fn many_at_once_are_no_flood() -> Result<(), TestError> {
    let mut server = NameServer::start().await?;
    server.set_records(&format!("*.many 1 IN CNAME {RANDOM}."))?;
    let settings = Settings { per_second: 50, timing: Timing::default(), ..settings(&server) };
    let prover = Prover::start(settings)?;
    let began = Instant::now();
    prover.want((0..100).map(|index| wanted(&format!("d{index}.many.example.com"))).collect());
    let mut changes = prover.subscribe();
    timeout(WITHIN, async {
        while prover.proofs().len() < 100 {
            changes.changed().await.unwrap();
        }
    })
    .await?;
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}: fifty in a second", began.elapsed());
    Ok(())
}
