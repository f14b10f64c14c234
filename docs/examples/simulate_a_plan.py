"""Simulate a planned fleet on Poisson arrivals, with the service's own routing rule."""

from extproc.planner import (
    Conduct,
    FleetSpec,
    PoolSpec,
    Question,
    RuleName,
    arrive,
    draw_limits,
    from_cdf,
    make_rule,
    named_profile,
    plan,
    poisson,
    simulate,
    summarise,
)

CDF = ((256, 0.4), (1024, 0.8), (4096, 0.97), (16_384, 1.0))
profile = named_profile("a100-llama70b")
lengths = from_cdf("mine", CDF)
best = plan(Question(workload=lengths, rate_per_s=40, profile=profile, window=32_768))
fleet = FleetSpec(
    tuple(
        PoolSpec(
            name=pool.name,
            engine=profile.engine(pool.max_model_len, pool.max_num_seqs, 2048),
            profile=profile.pace,
            instances=pool.instances,
            threshold=pool.threshold,
            gpus=profile.gpus,
        )
        for pool in best.pools
    )
)
trace = poisson(lengths, rate=40, n=4000, seed=1)
rule = make_rule(RuleName.DUALPOOL, fleet, seed=1)
records = simulate(fleet, arrive(trace, draw_limits(trace, seed=1), seed=1), rule, Conduct(seed=1))
figures = summarise(records).fleet
print(best.verdict)
print(f"planned: P99 TTFT {max(pool.ttft_p99_s for pool in best.pools):.2f} s")
print(f"simulated: P99 TTFT {figures.ttft_p99_s:.2f} s")
