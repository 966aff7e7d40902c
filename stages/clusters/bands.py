"""How a sketch is cut into bands, so that similar texts are found without comparing all with all."""

from schemas.errors import GateError


def choose_bands(num_perm: int, threshold: float, recall: float) -> tuple[int, int]:
    """Return bands and values per band: the longest bands that find a pair at the threshold with probability `recall`.

    With b bands of r values the probability is 1 - (1 - threshold^r)^b (Leskovec, Rajaraman and Ullman, Mining of
    Massive Datasets, section 3.4). Longer bands propose fewer pairs that are not duplicates.

    Raises GateError if the sketch is too short for that.
    """
    for n_values in range(num_perm, 0, -1):
        n_bands = num_perm // n_values
        if 1 - (1 - threshold**n_values) ** n_bands >= recall:
            return n_bands, n_values
    raise GateError(
        f"[clusters] threshold={threshold} cannot be found with recall={recall} from {num_perm} MinHash values; "
        "raise threshold or [signatures] num_perm, or lower recall"
    )
