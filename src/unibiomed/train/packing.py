"""Turns as token rows: encoded, padded, and packed so that one image is read once for all its questions."""

from __future__ import annotations

import torch

from unibiomed.model.processing import END, IMAGENET_MEAN, IMAGENET_STD, UniBiomedProcessor

IGNORE = -100


def normalise_batch(images: list[torch.Tensor]) -> torch.Tensor:
    """(N, 3, size, size) for the encoder, of (3, size, size) images in [0, 1]."""
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (torch.stack(images) - mean) / std


def encode_turn(
    processor: UniBiomedProcessor, question: str, answer: str, image_tokens: int
) -> tuple[list[int], list[int]]:
    """Token ids of one question with its answer, and the labels: the answer and its end alone are learned."""
    prompt = processor.prompt_ids(question, image_tokens)
    reply = processor.encode(answer + END)
    return prompt + reply, [IGNORE] * len(prompt) + reply


def pad(sequences: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """Right-padded ``input_ids``, ``labels`` and ``attention_mask``, each (batch, longest)."""
    longest = max(len(ids) for ids, _ in sequences)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in sequences])
    labels = torch.tensor([row + [IGNORE] * (longest - len(row)) for _, row in sequences])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in sequences])
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def answer_lengths(labels: torch.Tensor) -> torch.Tensor:
    """For each label the length of the answer that it belongs to, 0 where nothing is learned.

    Parameters
    ----------
    labels : torch.Tensor
        (batch, length); answers are apart from each other, as after :func:`encode_turn`.

    Returns
    -------
    torch.Tensor
        (batch, length) int64.
    """
    told = labels != IGNORE
    starts = told & ~torch.cat([torch.zeros_like(told[:, :1]), told[:, :-1]], 1)
    # answers are numbered from 1 through all rows; what lies between them counts to the one before
    number = starts.flatten().cumsum(0)
    lengths = torch.bincount(number, told.flatten().double()).long()
    return lengths[number].view_as(labels) * told


def pack(rows: list[list[tuple[list[int], list[int]]]]) -> dict[str, torch.Tensor]:
    """Several turns about one image in one row, each as if it stood alone.

    The turns share the beginning of their prompts, the image included, which stands once. A turn sees that beginning
    and itself, not its neighbours, and its positions go on from the beginning: the loss is that of separate rows.

    Parameters
    ----------
    rows : list of list of (ids, labels)
        The turns of each image, from :func:`encode_turn`.

    Returns
    -------
    dict of torch.Tensor
        ``input_ids``, ``labels``, ``position_ids``, each (rows, longest), and a boolean ``attention_mask`` of shape
        (rows, 1, longest, longest), True where a query (third) may look at a key (last).
    """
    packed: list[tuple[list[int], ...]] = []
    for turns in rows:
        first = turns[0][0]
        shared = 0
        while all(shared < len(ids) - 1 and ids[shared] == first[shared] for ids, _ in turns) and len(turns) > 1:
            shared += 1
        ids, labels = list(first[:shared]), [IGNORE] * shared
        positions, owner = list(range(shared)), [0] * shared
        for number, (turn_ids, turn_labels) in enumerate(turns, 1):
            ids += turn_ids[shared:]
            labels += turn_labels[shared:]
            positions += range(shared, len(turn_ids))
            owner += [number] * (len(turn_ids) - shared)
        packed.append((ids, labels, positions, owner))
    longest = max(len(ids) for ids, *_ in packed)
    input_ids, all_labels, position_ids, owners = (
        torch.tensor([row[k] + [fill] * (longest - len(row[k])) for row in packed])
        for k, fill in enumerate((0, IGNORE, 0, -1))
    )
    same = owners[:, :, None] == owners[:, None, :]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    return {
        "input_ids": input_ids,
        "labels": all_labels,
        "position_ids": position_ids,
        "attention_mask": ((same | (owners == 0)[:, None, :]) & causal)[:, None],
    }
