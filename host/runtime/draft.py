"""Drafts by prompt lookup: what followed the last tokens when they stood in the text before."""

LONGEST = 3  # tokens that are compared


def propose(text, count, longest=LONGEST):
    """Tokens that may follow a text, to be verified in one run of the device.

    The last ``longest`` tokens, or fewer where these have no match, are looked for earlier in the text; of several
    places the last one counts. What follows there is proposed. Where the text ends before ``count`` tokens, the
    proposal itself is read on, so that a text that repeats itself gives repetitions.

    Parameters
    ----------
    text : sequence of int
    count : int
        Tokens to propose at most.
    longest : int
        Tokens to compare at most.

    Returns
    -------
    list of int
        ``count`` tokens, or none if even the last token is new.
    """
    best, behind = 0, None
    last = len(text) - 1
    for at in range(last - 1, -1, -1):
        length = 0
        while length < longest and length <= at and text[at - length] == text[last - length]:
            length += 1
        if length > best:
            best, behind = length, at + 1
            if best == longest:
                break
    if behind is None or count <= 0:
        return []
    out = []
    for k in range(behind, behind + count):
        out.append(text[k] if k <= last else out[k - last - 1])
    return out
