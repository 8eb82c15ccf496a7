"""What once went wrong, as small scenarios: ``simulations/corpus``."""

from pathlib import Path

import pytest

import simulations
from simulations.run import Run
from simulations.scenarios.library import Changes, find

pytestmark = pytest.mark.long
CORPUS = sorted((Path(simulations.__file__).parent / "corpus").glob("*.toml"))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_what_once_went_wrong_goes_well(file: Path, seed: int) -> None:
    run = Run(Changes(seed=seed).apply(find(str(file))))
    for _ in run.steps():
        pass
    assert [finding.said for finding in run.report().findings] == []
