//! What of a plan is there already: results of stages, and layers of steps. What needs no pod is put together here.
//!
//! ```text
//!  keys ─▶ results of stages ─┬─ there, and whole ─▶ cached
//!                             └─ else ─▶ its steps ─┬─ all there ─▶ its manifest is written here ─▶ cached
//!                                                   └─ some are not ─▶ a pod, told which are
//! ```
//! So a change that is in no layer (a label, `CMD`) needs no pod, only another manifest.

use crate::{
    pod::{Pod, internal},
    results::{self, Found, Missing},
    stage,
};
use futures::{StreamExt as _, future::join_all};
use slipway_engine::{
    Layer, LayerDesc, Packing, Result, Root,
    cache::{Hit, Hits, RegistryCache},
    export::push_layer,
    images::Images,
    pack_layer,
};
use slipway_oci::Digest;
use slipway_plan::{
    BuildPlan, Keys, Source, StageIndex, Step,
    explain::{Had, Outcome},
    keys::{fresh, run_keys},
    protocol::Schedule,
};
use slipway_registry::{copy_image, kept::Kind};
use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

/// Requests under way at once.
const PARALLEL: usize = 16;

/// What is there of a plan.
pub(super) struct Have {
    /// The schedule, with the results that are there.
    pub(super) schedule: Schedule,
    /// For each stage, the keys to publish it under.
    pub(super) names: Vec<Vec<String>>,
    /// For each stage that is there, the content key of its root.
    pub(super) roots: Vec<Option<String>>,
    /// The steps that are there of stages that are not.
    pub(super) steps: Hits,
    /// The same, for the explanation.
    pub(super) had: Vec<Had>,
}

/// Looks what is there.
pub(super) async fn look(
    pod: &Pod,
    cache: &RegistryCache,
    plan: &BuildPlan,
    keys: &Keys,
    images: &Images,
) -> Result<Have> {
    let schedule = slipway_plan::schedule(plan, keys, &|_| None);
    let mut look = Look {
        pod,
        cache,
        plan,
        keys,
        names: names(plan, keys, &schedule)?,
        fresh: fresh(plan),
        there: vec![None; plan.stages.len()],
        broken: BTreeSet::new(),
        hits: vec![Vec::new(); plan.stages.len()],
    };
    look.find_results().await;
    look.verify_results().await?;
    look.find_steps().await;
    for index in (0..plan.stages.len()).rev() {
        if look.needed()[index] {
            look.put_together(index, images).await?;
        }
    }
    Ok(look.finish(schedule))
}

/// The name of each stage's result: its key, and for an image also what is in its config beside the stage's.
fn names(plan: &BuildPlan, keys: &Keys, schedule: &Schedule) -> Result<Vec<String>> {
    let mut names: Vec<String> = schedule.stages.iter().map(|stage| stage.key.clone()).collect();
    for result in &plan.results {
        // The labels of the request, which the stage's key does not know.
        let written = (&result.config, &result.annotations);
        let config = serde_json::to_string(&written).map_err(|error| internal(error.to_string()))?;
        let key = &keys.stages[result.stage].result;
        names[result.stage] = digest(&["result", key.as_str(), &config, &format!("{:?}", plan.epoch)]);
    }
    Ok(names)
}

fn digest(parts: &[&str]) -> String {
    Digest::of(parts.join("\n").as_bytes()).hex().to_owned()
}

/// The name of a result in a scope: builds that may not share it do not even call it the same.
fn scoped(name: &str, scope: Option<&str>) -> String {
    scope.map_or_else(|| name.to_owned(), |scope| digest(&["scope", scope, name]))
}

/// A result that is there.
#[derive(Debug, Clone)]
struct There {
    manifest: Digest,
    content_key: String,
    /// Index of its place.
    place: usize,
}

struct Look<'a> {
    pod: &'a Pod,
    cache: &'a RegistryCache,
    plan: &'a BuildPlan,
    keys: &'a Keys,
    names: Vec<String>,
    fresh: Vec<bool>,
    there: Vec<Option<There>>,
    /// What stands under their names must not be waited for.
    broken: BTreeSet<StageIndex>,
    /// The steps that are there, from the first to the first that is not.
    hits: Vec<Vec<Hit>>,
}

impl Look<'_> {
    /// Asks for the results of all stages, each place in turn, all stages at once.
    async fn find_results(&mut self) {
        let places: Vec<_> = self.cache.places().all().cloned().collect();
        for (number, place) in places.iter().enumerate() {
            let wanted: Vec<StageIndex> = (0..self.plan.stages.len())
                .filter(|&index| {
                    self.there[index].is_none() && !self.fresh[index] && self.keys.stages[index].certain
                })
                .collect();
            let asked = wanted.into_iter().map(|index| {
                let name = scoped(&self.names[index], place.scope.as_deref());
                async move { (index, results::find(place, &name).await, name) }
            });
            let answers: Vec<_> = futures::stream::iter(asked).buffered(PARALLEL).collect().await;
            let mut silent = false;
            for (index, answer, name) in answers {
                match answer {
                    Ok(found) => self.found(index, number, &name, found),
                    Err(Missing::Absent) => {}
                    Err(Missing::Broken(why)) => self.break_off(index, number, &why),
                    Err(Missing::Unread(error)) => {
                        if !std::mem::replace(&mut silent, true) {
                            let detail = format!("{} is not used: {error}", place.repository);
                            self.pod.progress.warn("CacheUnavailable", &detail, 0);
                        }
                    }
                }
            }
        }
    }

    fn found(&mut self, index: StageIndex, place: usize, name: &str, found: Found) {
        if place == 0 && found.stamp.is_stale() {
            let tag = self.cache.places().own().tag(Kind::Stage, name);
            self.cache.note_use(tag, found.index);
        }
        self.there[index] = Some(There {
            manifest: found.manifest,
            content_key: found.content_key,
            place,
        });
    }

    fn break_off(&mut self, index: StageIndex, place: usize, why: &str) {
        let name = &self.plan.stages[index].name;
        let detail = format!("the kept result of stage {name} is not used: {why}");
        self.pod.progress.warn("CacheEntryBroken", &detail, 0);
        self.there[index] = None;
        if place == 0 {
            self.broken.insert(index);
        }
    }

    /// What the build is for: its results, and the gates before them.
    fn goals(&self) -> impl Iterator<Item = StageIndex> {
        let results = self.plan.results.iter().map(|result| result.stage);
        results.chain(self.plan.gates.iter().copied())
    }

    /// Which stages some goal needs and are not there.
    fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.plan.stages.len()];
        for goal in self.goals() {
            needed[goal] = true;
        }
        for index in (0..self.plan.stages.len()).rev() {
            needed[index] &= self.there[index].is_none();
            if needed[index] {
                for other in reads(self.plan, index) {
                    needed[other] = true;
                }
            }
        }
        needed
    }

    /// Results that somebody reads are looked at more closely; those of other repositories are brought here.
    async fn verify_results(&mut self) -> Result<()> {
        let mut good: BTreeSet<StageIndex> = BTreeSet::new();
        loop {
            let needed = self.needed();
            let mut read: BTreeSet<StageIndex> = self.goals().collect();
            for index in (0..needed.len()).filter(|&index| needed[index]) {
                read.extend(reads(self.plan, index));
            }
            let open: Vec<(StageIndex, There)> = read
                .into_iter()
                .filter(|index| !good.contains(index))
                .filter_map(|index| Some((index, self.there[index].clone()?)))
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            let looks = open.iter().map(|(index, there)| self.verify(*index, there));
            for ((index, there), answer) in open.iter().zip(join_all(looks).await) {
                match answer {
                    Ok(()) => {
                        good.insert(*index);
                    }
                    Err(why) => self.break_off(*index, there.place, &why),
                }
            }
        }
    }

    async fn verify(&self, index: StageIndex, there: &There) -> Result<(), String> {
        let places = self.cache.places();
        let Some(place) = places.all().nth(there.place) else {
            return Err("it is nowhere".to_owned());
        };
        results::verify(&place.repository, &there.manifest, self.plan, index).await?;
        let own = places.own();
        if place.repository.to_string() == own.repository.to_string() {
            return Ok(());
        }
        let bring = async {
            copy_image(&place.repository, &there.manifest, &own.repository).await?;
            let manifest = own.repository.get_manifest(&there.manifest).await?;
            let name = scoped(&self.names[index], own.scope.as_deref());
            results::put(own, &name, &manifest, &there.content_key, &self.pod.stamp()).await
        };
        bring
            .await
            .map_err(|error| format!("it could not be copied from {}: {error}", place.repository))
    }

    /// Asks for the steps of the stages that are needed and not there, all stages at once.
    async fn find_steps(&mut self) {
        let needed = self.needed();
        let (plan, all_keys, cache) = (self.plan, self.keys, self.cache);
        let looks = (0..needed.len()).filter(|&index| needed[index]).map(|index| {
            let keys: Vec<String> = run_keys(plan, all_keys, index)
                .into_iter()
                .zip(&plan.stages[index].steps)
                .filter(|(_, step)| step.makes_layer())
                .map_while(|(key, _)| key.filter(|key| key.usable))
                .map(|key| key.key.as_str().to_owned())
                .collect();
            async move {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                (index, cache.chain(&keys).await)
            }
        });
        for (index, hits) in join_all(looks).await {
            self.hits[index] = hits;
        }
    }

    /// Writes the result of a stage all of whose steps are there, if its base is there too.
    async fn put_together(&mut self, index: StageIndex, images: &Images) -> Result<()> {
        let stage = &self.plan.stages[index];
        let count = stage.steps.iter().filter(|step| step.makes_layer()).count();
        if stage.no_cache || self.hits[index].len() < count {
            return Ok(());
        }
        if let Source::Stage(below) = stage.base
            && self.there[below].is_none()
        {
            Box::pin(self.put_together(below, images)).await?;
        }
        let Some(mut root) = self.base(index, images).await? else {
            return Ok(());
        };
        let compression = stage::compression(self.plan, index);
        for hit in &self.hits[index] {
            let is = slipway_layer::Compression::from_media_type(&hit.entry.layer.media_type);
            if is.is_none_or(|is| is.name() != compression.name()) && results::is_in_image(self.plan, index) {
                // It has to be packed otherwise, and that takes a pod.
                return Ok(());
            }
            root.layers.extend(self.cache.layer(hit));
            root.content_key.clone_from(&hit.entry.content_key);
        }
        let packing = Packing::new(compression);
        let store = &self.pod.store;
        let repository = self.pod.cache();
        let mut layers: Vec<Layer> = Vec::with_capacity(root.layers.len());
        for layer in root.layers {
            // Known by its descriptor, so this reads no bytes.
            let desc: LayerDesc = pack_layer(store, &layer, &Root::default(), &packing).await?;
            layers.push(Layer {
                desc: Some(desc),
                ..layer
            });
        }
        for pushed in join_all(layers.iter().map(|layer| push_layer(store, &repository, layer))).await {
            if let Err(error) = pushed {
                self.break_off(index, usize::MAX, error.message());
                self.hits[index].clear();
                return Ok(());
            }
        }
        let name = &stage.name;
        let vertex = self
            .pod
            .progress
            .start(format!("[internal] all steps of stage {name} are in the cache"));
        let image = results::assemble(self.plan, index, layers)?;
        let own = scoped(&self.names[index], self.cache.places().own().scope.as_deref());
        stage::put(self.pod, &[own], &image, &root.content_key).await?;
        vertex.done();
        self.broken.remove(&index);
        self.there[index] = Some(There {
            manifest: image.manifest_digest,
            content_key: root.content_key,
            place: 0,
        });
        Ok(())
    }

    /// What a stage begins with, if it is there.
    async fn base(&self, index: StageIndex, images: &Images) -> Result<Option<Root>> {
        match &self.plan.stages[index].base {
            Source::Scratch => Ok(Some(Root {
                layers: Vec::new(),
                content_key: "scratch".into(),
            })),
            Source::Image(image) => images.root(image).await.map(Some),
            Source::Stage(below) => {
                let Some(there) = &self.there[*below] else {
                    return Ok(None);
                };
                let repository = self.pod.cache();
                let manifest = repository.get_manifest(&there.manifest).await?;
                let documents = results::documents(&repository, &manifest).await?;
                Ok(Some(documents.root(&repository, Some(&there.content_key))))
            }
            _ => Ok(None),
        }
    }

    fn finish(self, mut schedule: Schedule) -> Have {
        let needed = self.needed();
        let scope = self.cache.places().own().scope.clone();
        let mut names = Vec::with_capacity(schedule.stages.len());
        for (index, stage) in schedule.stages.iter_mut().enumerate() {
            let usual = scoped(&self.names[index], scope.as_deref());
            stage.cached = self.there[index].as_ref().map(|there| there.manifest.clone());
            stage.key.clone_from(&usual);
            if stage.cached.is_none() && (self.fresh[index] || self.broken.contains(&index)) {
                // What stands under its usual name is another run's: who waits for this one waits for another name.
                stage.key = digest(&["run", &this_run(self.pod), &usual]);
                names.push(vec![stage.key.clone(), usual]);
            } else {
                names.push(vec![usual]);
            }
        }
        let had = (0..needed.len())
            .map(|index| self.had(index, needed[index]))
            .collect();
        let steps = (0..needed.len())
            .filter(|&index| needed[index])
            .flat_map(|index| &self.hits[index])
            .flat_map(|hit| hit.entry.keys.iter().map(|key| (key.clone(), hit.clone())))
            .collect();
        Have {
            schedule,
            names,
            roots: self
                .there
                .into_iter()
                .map(|there| there.map(|there| there.content_key))
                .collect(),
            steps,
            had,
        }
    }

    fn had(&self, index: StageIndex, needed: bool) -> Had {
        let outcome = match (&self.there[index], needed) {
            (Some(_), _) => Outcome::Cached,
            (None, true) => Outcome::Runs,
            (None, false) => Outcome::Skipped,
        };
        let mut left = self.hits[index].len();
        let steps = self.plan.stages[index].steps.iter().map(|step| {
            let hit = step.makes_layer() && left > 0;
            left -= usize::from(hit);
            hit
        });
        Had {
            outcome,
            steps: steps.collect(),
        }
    }
}

/// The stages that a stage reads from.
fn reads(plan: &BuildPlan, index: StageIndex) -> BTreeSet<StageIndex> {
    let stage = &plan.stages[index];
    let mut stages: BTreeSet<StageIndex> = stage.steps.iter().flat_map(Step::stages).collect();
    if let Source::Stage(base) = stage.base {
        stages.insert(base);
    }
    stages
}

/// Tells this run from all others.
fn this_run(pod: &Pod) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!("{}/{}/{now}", pod.build_name(), pod.request.build.generation)
}
