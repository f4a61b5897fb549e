"""The field names that a generation may have, in camelCase: anything else is refused by name, as the service does.

Source: the messages of google-genai 3.4.0, and the REST reference. Data only.
"""

from __future__ import annotations

# What nearly every request is made of; the rest is looked at only where there is any.
COMMON = frozenset({"contents", "generationConfig", "systemInstruction"})
REQUEST = COMMON | {
    "model",
    "tools",
    "toolConfig",
    "safetySettings",
    "cachedContent",
    "serviceTier",
    "labels",
    "store",
    "modelArmorConfig",
    "continuationToken",
}
GENERATION_CONFIG = frozenset(
    {
        "audioTimestamp",
        "audioTranscriptionConfig",
        "candidateCount",
        "enableAffectiveDialog",
        "enableEnhancedCivicAnswers",
        "frequencyPenalty",
        "imageConfig",
        "logprobs",
        "maxOutputTokens",
        "mediaResolution",
        "modelSelectionConfig",
        "presencePenalty",
        "responseFormat",
        "responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseModalities",
        "responseSchema",
        "routingConfig",
        "seed",
        "speechConfig",
        "stopSequences",
        "temperature",
        "thinkingConfig",
        "topK",
        "topP",
        "translationConfig",
    }
)
