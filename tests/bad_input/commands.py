"""Bad input through the command line: options out of range, names that are none, verbs that do not fit together."""

from tests.bad_input.cases import COMMAND, Case

TRAIN = ["--epochs", 1, "--snapshots", 1, "--canaries", "none"]


def _train(name, says, *options):
    def make(place):
        corpus = place.write("corpus.txt", "\n".join(f"line number {i} of a small corpus" for i in range(40)))
        given = [str(option) for option in options]
        return ["train", "--corpus", corpus, *TRAIN, "--out", place.root / "new", *given]  # the last of two counts

    return Case(COMMAND, f"train {name}", make, says)


def _verb(name, says, *arguments):
    return Case(COMMAND, name, lambda place: list(arguments), says)


def _select(name, says, *options):
    return Case(
        COMMAND, f"select {name}", lambda place: ["select", "good", *options, "--out", place.root / "x.json"], says
    )


def _plan(name, says, *options):
    return Case(COMMAND, f"plan {name}", lambda place: ["plan", "good", place.root / "s.json", *options], says)


def _of_plan(name, says, verb, *options):
    return Case(COMMAND, f"{verb} {name}", lambda place: [verb, "good", place.plan, *options], says)


CASES = [
    _train("for no epoch", ("--epochs", "above 0", "got 0"), "--epochs", 0),
    _train("for NaN epochs", ("--epochs", "got nan"), "--epochs", "nan"),
    _train("for infinitely many epochs", ("--epochs", "got inf"), "--epochs", "inf"),
    _train("without a snapshot", ("--snapshots", "got 0"), "--snapshots", 0),
    _train("with a thousand million snapshots", ("--snapshots", "10,000"), "--snapshots", 10**9),
    _train("with a negative seed", ("--seed", "got -1"), "--seed", -1),
    _train("with a seed beyond 64 bits", ("--seed", str(2**64)), "--seed", 2**64),
    _train("with a seed of words", ("--seed", "'seven' is not a valid integer"), "--seed", "seven"),
    _train("in batches of nothing", ("--batch-size", "got 0"), "--batch-size", 0),
    _train("in batches beyond all memory", ("--batch-size", "1,000,000"), "--batch-size", 10**12),
    _train("at an infinite rate", ("--learning-rate", "finite"), "--learning-rate", "inf"),
    _train("at a rate of NaN", ("--learning-rate", "got nan"), "--learning-rate", "nan"),
    _train("at a rate of 0", ("--learning-rate", "above 0"), "--learning-rate", 0),
    _train("with an infinite decay", ("--weight-decay", "finite"), "--weight-decay", "inf"),
    _train("with all held out", ("--validation", "between 0 and 1"), "--validation", 1),
    _train("with NaN held out", ("--validation", "got nan"), "--validation", "nan"),
    _train("with fewer canaries than none", ("--canaries", "got -3"), "--canaries", -3),
    _train("with a word for canaries", ("--canaries", "'many' is not a whole number"), "--canaries", "many"),
    _train("with a ladder that repeats itself", ("--canary-repeats", "distinct"), "--canary-repeats", "2,2"),
    _train("with a ladder of nothing", ("--canary-repeats", "not a whole number"), "--canary-repeats", ""),
    _train("with a kind of canary that is none", ("--canary-kinds", "parrot"), "--canary-kinds", "parrot"),
    _train("with no thread", ("--threads", "got 0"), "--threads", 0),
    _train("with a width beyond all memory", ("--hidden", "65,536"), "--hidden", 10**9),
    _train("with all dropped", ("--dropout", "[0, 1)"), "--dropout", 1),
    _train("with heads that do not divide", ("--heads", "multiple"), "--task", "gpt", "--hidden", 10, "--heads", 3),
    _train("with a vocabulary of nothing", ("--vocab-size", "300"), "--vocab-size", 0),
    _train("with pieces of one word", ("--piece-words", "2 or more"), "--piece-words", 1),
    _train("on a device that is none", ("--device", "'abacus'"), "--device", "abacus"),
    _train("into a file", ("exists already", "--out"), "--out", __file__),
    _train("into a path with NUL", ("--out",), "--out", "a\0b"),
    _verb("train without a corpus", ("--corpus", "demo"), "train", "--out", "nowhere"),
    _verb("a verb that is none", ("No such command 'fly'",), "fly"),
    _verb("an option that is none", ("No such option", "--sideways"), "score", "good", "--sideways", 1),
    _verb("a run that is not there", ("no run 'nobody'", "good"), "score", "nobody"),
    _verb("a run without a name", ("no run ''",), "score", ""),
    _verb("a run id that climbs out", ("no run '../../etc'",), "score", "../../etc"),
    _verb("a run id of 10,000 letters", ("no run",), "score", "x" * 10_000),
    _verb("a run id with NUL", ("no run",), "score", "a\0b"),
    _verb("a run id with a line break and colours", ("no run",), "score", "a\nb\x1b[31mred\x07"),
    _verb("a run id of right-to-left text", ("no run",), "score", "\u202eנסתר\u202c"),
    _verb("a score at eps NaN", ("--eps", "finite", "nan"), "score", "good", "--eps", "nan"),
    _verb("a score at quantile 2", ("--eps", "0 to 1", "got 2.0"), "score", "good", "--eps", 2),
    _verb("absolute eps without one", ("--eps", "nats"), "score", "good", "--eps-mode", "absolute"),
    _verb("no burn-in", ("--burn-in", "(0, 1]"), "score", "good", "--burn-in", 0),
    _verb("a cut beyond all", ("--cut-x", "0 to 100"), "score", "good", "--cut-x", 101),
    _verb("a cut at NaN", ("--cut-y", "0 to 100", "nan"), "score", "good", "--cut-y", "nan"),
    _verb("a negative dead band", ("--hysteresis", "0 or more"), "score", "good", "--hysteresis", -1),
    _verb("an axis that is no score", ("unknown score 'beauty'", "difficulty"), "score", "good", "--x", "beauty"),
    _verb("an axis full of markup", ("unknown score '<script>",), "score", "good", "--y", "<script>alert(1)</script>"),
    _select("nothing", ("exactly one of",)),
    _select("in two ways", ("exactly one of",), "--quadrant", "stable-easy", "--top", 0.1),
    _select("a quadrant that is none", ("unknown quadrant 'fifth'",), "--quadrant", "fifth"),
    _select("the top 0", ("q must lie in (0, 1]",), "--top", 0, "--by", "final_loss"),
    _select("the top NaN", ("q must be a finite number",), "--top", "nan", "--by", "final_loss"),
    _select("the top 200 %", ("q must lie in (0, 1]", "2.0"), "--top", 2, "--by", "final_loss"),
    _select("less than one sample", ("at least one of 120",), "--top", 1e-9, "--by", "final_loss"),
    _select("the top by nothing", ("--top and --by",), "--top", 0.1),
    _select("the top by no score", ("unknown axis 'luck'",), "--top", 0.1, "--by", "luck"),
    _select("combined with nothing", ("--combine and --with",), "--top", 0.1, "--by", "final_loss", "--combine", "add"),
    _plan("without an action", ("--action",)),
    _plan("with an action that is none", ("unknown action 'burn'",), "--action", "burn"),
    _plan("that prunes by a factor", ("no meaning for prune",), "--action", "prune", "--factor", 2),
    _plan("that weighs by NaN", ("reweight needs a factor", "nan"), "--action", "reweight", "--factor", "nan"),
    _plan("that weighs by infinity", ("reweight needs a factor", "inf"), "--action", "reweight", "--factor", "inf"),
    _plan("that changes nothing", ("other than 1",), "--action", "reweight", "--factor", 1),
    _plan("with a weight that no float32 holds", ("1e-06",), "--action", "reweight", "--factor", 1e-60),
    _plan("that repeats by halves", ("whole factor",), "--action", "upsample", "--factor", 2.5),
    _plan("that repeats beyond all numbers", ("1,000", "1e+30"), "--action", "upsample", "--factor", 1e30),
    _verb("a policy of weight 1", ("--alpha", "got 1.0"), "plan", "good", "--policy", "quadrants", "--alpha", 1),
    _verb("a policy of NaN repeats", ("whole factor",), "plan", "good", "--policy", "quadrants", "--gamma", "nan"),
    _of_plan("with no seed", ("--seeds", "got 0"), "measure", "--seeds", 0),
    _of_plan("with a thousand million seeds", ("--seeds", "100"), "measure", "--seeds", 10**9),
    _of_plan("until NaN is reached", ("--stop-at", "nan"), "measure", "--stop-at", "nan"),
    _of_plan("in a format that is none", ("--format", "'xml'"), "export", "--format", "xml", "--out", "x"),
    _of_plan("with fewer texts than none", ("--with-texts", "-1"), "report", "--with-texts", -1),
    _of_plan("with a negative seed", ("--seed", "got -5"), "retrain", "--seed", -5, "--out", "nowhere"),
    _verb("clean in steps of NaN", ("--step", "nan"), "clean", "good", "--step", "nan"),
    _verb("clean beyond everything", ("--budget", "below 1"), "clean", "good", "--budget", 1),
    _verb("an odd number of fold models", ("--models", "even"), "probe", "good", "folds", "--models", 5),
    _verb("a probe that is none", ("unknown probe 'moon'",), "probe", "good", "moon"),
    _verb("an audit that is none", ("unknown audit 'taxes'",), "audit", "good", "taxes"),
    _verb("a corpus that is none", ("unknown corpus 'novels'",), "corpus", "novels"),
    _verb("a comparison with nobody", ("no run 'ghost'",), "compare", "good", "ghost"),
]
