//! How much of which offer EC2 has left, as the scenario says.

use crate::offers::Market;

/// Some offers: what is none stands for every one.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    pub instance_type: Option<String>,
    pub zone: Option<String>,
    pub market: Option<Market>,
}

impl Offers {
    /// Every offer there is.
    pub fn all() -> Self {
        Self::default()
    }

    /// Of these, those of one type.
    #[must_use]
    pub fn of_type(self, name: &str) -> Self {
        Self { instance_type: Some(name.to_owned()), ..self }
    }

    /// Of these, those of one zone.
    #[must_use]
    pub fn in_zone(self, name: &str) -> Self {
        Self { zone: Some(name.to_owned()), ..self }
    }

    /// Of these, those of one market.
    #[must_use]
    pub fn on(self, market: Market) -> Self {
        Self { market: Some(market), ..self }
    }

    fn cover(&self, instance_type: &str, zone: &str, market: Market) -> bool {
        self.instance_type.as_deref().is_none_or(|own| own == instance_type)
            && self.zone.as_deref().is_none_or(|own| own == zone)
            && self.market.is_none_or(|own| own == market)
    }
}

struct Limit {
    offers: Offers,
    remaining: usize,
    code: String,
}

/// The limits in force; without any, everything is to be had.
#[derive(Default)]
pub struct Capacity {
    limits: Vec<Limit>,
}

impl Capacity {
    /// From now on `remaining` more instances of these offers together, then `code`.
    pub fn limit(&mut self, offers: Offers, remaining: usize, code: &str) {
        self.limits.push(Limit { offers, remaining, code: code.to_owned() });
    }

    /// Everything is to be had again.
    pub fn clear(&mut self) {
        self.limits.clear();
    }

    /// Takes one instance, or gives the error code of the limit that forbids it.
    pub fn take(&mut self, instance_type: &str, zone: &str, market: Market) -> Result<(), String> {
        let covers = |limit: &&mut Limit| limit.offers.cover(instance_type, zone, market);
        if let Some(limit) = self.limits.iter_mut().filter(covers).find(|limit| limit.remaining == 0) {
            return Err(limit.code.clone());
        }
        self.limits.iter_mut().filter(covers).for_each(|limit| limit.remaining -= 1);
        Ok(())
    }

    /// Puts one instance back that was taken and not launched.
    pub fn give_back(&mut self, instance_type: &str, zone: &str, market: Market) {
        let covers = |limit: &&mut Limit| limit.offers.cover(instance_type, zone, market);
        self.limits.iter_mut().filter(covers).for_each(|limit| limit.remaining += 1);
    }
}
