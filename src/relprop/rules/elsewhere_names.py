"""The names of zennit 1.0, captum 0.9, innvestigate 2.1, LXT 2.1 and the literature, and what they are here.

The tests run everything that is to be typed; docs/coming-from.md is written from these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Here:
    """What is typed here, as Python, or "" where nothing can or has to be; and what differs, or why."""

    typed: str
    note: str = ""


@dataclass(frozen=True)
class Library:
    """Names of a library; those of one meaning stand together, with spaces between."""

    names: Mapping[str, Here]
    arguments: Mapping[str, Here] = field(default_factory=dict)
    parameters: Mapping[str, Here] = field(default_factory=dict)


_Z_PLUS = "ZPlus() leaves biases out, as zennit does with zero_params='bias'"
_ALPHA_BETA = "AlphaBeta(2, 1) leaves biases out, as zennit does with zero_params='bias'"
_FLAT = "flat is for a first convolution, in zennit for any first layer"
_FOLDED = "batch norm is folded into the layer before or after it, by arithmetic and not on the model"
_AS_IT_IS = "the model is explained as it is, and its sums are seen wherever they are"
_GRADIENTS = (
    'it is a gradient and not LRP; rules="gradient-times-input" and "squared-gradient" are for comparison'
)
_MANY_RUNS = "it runs the model many times, and is not LRP; relprop runs it once forward and once backward"
_PASSED = "activations pass relevance on without a rule"
_TERMS = "sums and average pooling share relevance by contribution without a rule"
_PRODUCTS = "for products"
_OWN_RULE = "docs/own-rules.md shows how to write a rule"
_ATTENTION = 'for CP-LRP rules="cp-lrp"; nothing is patched'
_SOFTMAX = "a model that ends in a softmax is better explained without it, and a warning says so"

ZENNIT = Library(
    names={
        "Epsilon": Here("relprop.rules.Epsilon(1e-6)"),
        "Gamma": Here("relprop.rules.Gamma(0.25)"),
        "ZPlus": Here('relprop.rules.ZPlus("absorb")', _Z_PLUS),
        "AlphaBeta": Here('relprop.rules.AlphaBeta(2, 1, "absorb")', _ALPHA_BETA),
        "ZBox": Here("relprop.rules.ZBox(low, high)"),
        "WSquare": Here("relprop.rules.WSquare()", "without biases, as zennit's with zero_params='bias'"),
        "Flat": Here("relprop.rules.Flat()"),
        "Pass": Here("", _PASSED),
        "Norm": Here("", _TERMS),
        "ReLUDeconvNet ReLUGuidedBackprop ReLUBetaSmooth BetaSmooth beta_smooth": Here("", _GRADIENTS),
        "Hook BasicHook": Here("relprop.rules.Rule", _OWN_RULE),
        "EpsilonPlus": Here('rules="epsilon-plus"'),
        "EpsilonPlusFlat": Here('rules="epsilon-plus-flat"', _FLAT),
        "EpsilonAlpha2Beta1": Here('rules="epsilon-alpha2-beta1"'),
        "EpsilonAlpha2Beta1Flat": Here('rules="epsilon-alpha2-beta1-flat"', _FLAT),
        "EpsilonGammaBox": Here(
            'rules="epsilon-gamma-box", bounds=(low, high)',
            "the box is for whatever meets the input, in zennit for a first convolution",
        ),
        "ExcitationBackprop excitation_backprop": Here('rules="excitation"', _Z_PLUS),
        "Composite": Here(
            'relprop.Composite([("*", relprop.rules.Epsilon())])', "the first entry that matches wins"
        ),
        "LayerMapComposite": Here(
            'relprop.Composite([(nn.Conv2d, relprop.rules.ZPlus()), ("*", relprop.rules.Epsilon())])',
            "activations, sums, pooling and batch norm need no entry",
        ),
        "SpecialFirstLayerMapComposite": Here(
            "relprop.Composite([(relprop.places.First(), relprop.rules.Flat()), "
            '("*", relprop.rules.Epsilon())])',
            "First() is where layers meet the input",
        ),
        "NameMapComposite": Here(
            'relprop.Composite([("features.*", relprop.rules.ZPlus()), ("*", relprop.rules.Epsilon())])',
            "a name is a glob on module paths",
        ),
        "MixedComposite NameLayerMapComposite": Here(
            'relprop.Composite([("fc", relprop.rules.Gamma()), (nn.Conv2d, relprop.rules.ZPlus())])',
            "one list has names and layers",
        ),
        "Gradient Attributor": Here(
            "relprop.explain(model, x)", "relevance starts at the score, and not at 1"
        ),
        "Convolution": Here('relprop.places.Kind("convolution")'),
        "Canonizer AttributeCanonizer CompositeCanonizer": Here("", _AS_IT_IS),
        "ResNetCanonizer ResNetBasicBlockCanonizer ResNetBottleneckCanonizer Sum": Here("", _AS_IT_IS),
        "MergeBatchNorm SequentialMergeBatchNorm NamedMergeBatchNorm VGGCanonizer": Here("", _FOLDED),
        "imgify imsave": Here('explanation.save("heatmap.png")'),
    },
    arguments={
        "composite": Here("rules="),
        "attributor": Here("", "explain itself runs the model and goes back"),
        "canonizers": Here("", f"{_AS_IT_IS}; {_FOLDED}"),
        "attr_output": Here(
            "target=",
            "a class, a tensor of weights, or a function of the output; relevance starts at the score, "
            "so that it is zennit's, which starts at 1, times the score",
        ),
        "layer_map name_map first_map": Here(
            "rules=", "a list of (where, rule), of which the first match wins"
        ),
        "zero_params": Here('rules=relprop.rules.Epsilon(bias="ignore")', "each rule has its own"),
        "stabilizer": Here(
            "rules=relprop.rules.Epsilon(epsilon)", "other rules divide exactly and need none"
        ),
        "epsilon": Here("rules=relprop.rules.Epsilon(epsilon)"),
        "gamma": Here("rules=relprop.rules.Gamma(gamma)"),
        "low high": Here("bounds=(low, high)"),
        "create_graph retain_graph": Here("", "relevance is a tensor without a graph"),
    },
    parameters={
        "zero_params": Here('bias="ignore"'),
        "stabilizer": Here("epsilon=", "of Epsilon; other rules divide exactly and need none"),
        "norm_scale": Here('of="rms"', "of Epsilon"),
    },
)

CAPTUM = Library(
    names={
        "LRP attribute": Here("relprop.explain(model, x, rules=relprop.rules.Epsilon(1e-9))"),
        "LayerLRP": Here('relprop.explain(model, x, record="layer").inner["layer"]', "of the layer's output"),
        "EpsilonRule": Here("relprop.rules.Epsilon(1e-9)"),
        "GammaRule": Here(
            "relprop.rules.Gamma(0.25)",
            "that of 2021, for both signs, whose numbers differ; captum's with set_bias_to_zero=True is "
            "Gamma(0.25, 'ignore', favour='positive'), which has poles; its default has no counterpart",
        ),
        "Alpha1_Beta0_Rule": Here(
            "relprop.rules.ZPlus()",
            "as captum's with set_bias_to_zero=True, for inputs that are not negative; captum's default puts "
            "all of the bias into the denominator, which nothing here does",
        ),
        "IdentityRule": Here("", f"{_PASSED}, and {_FOLDED}"),
        "PropagationRule": Here("relprop.rules.Rule", _OWN_RULE),
        "Addition_Module": Here("", _AS_IT_IS),
        "InputXGradient": Here('rules="gradient-times-input"'),
        "visualize_image_attr": Here('explanation.save("heatmap.png")'),
    },
    arguments={
        "inputs": Here("relprop.explain(model, x)", "inputs follow the model"),
        "additional_forward_args": Here(
            "relprop.explain(model, x)",
            "give the model's other arguments by position or name; bind one in a lambda if it should not be "
            "explained",
        ),
        "return_convergence_delta": Here(
            "explanation.ledger.seed - explanation.ledger.inputs",
            "print(explanation.ledger) tells where it went, and ledger.gap what is missing",
        ),
        "attribute_to_layer_input": Here("record=", "the module before, whose output the layer's input is"),
        "layer": Here("record=", "modules by path or glob"),
        "verbose": Here("print(*explanation.rules)", "relprop.coverage(model, x) lists them beforehand"),
        "baselines": Here("", "LRP compares with no other input"),
        "n_steps internal_batch_size": Here("", "it is of integrated gradients; LRP takes one backward"),
    },
    parameters={"set_bias_to_zero": Here('bias="ignore"')},
)

INNVESTIGATE = Library(
    names={
        "lrp LRP create_analyzer analyze": Here("relprop.explain(model, x)"),
        "lrp.z LRPZ ZRule Z": Here("relprop.rules.Epsilon(0)"),
        "lrp.z_IB LRPZIgnoreBias": Here('relprop.rules.Epsilon(0, "ignore")'),
        "lrp.epsilon LRPEpsilon EpsilonRule": Here("relprop.rules.Epsilon(1e-7)"),
        "lrp.epsilon_IB LRPEpsilonIgnoreBias": Here('relprop.rules.Epsilon(1e-7, "ignore")'),
        "lrp.w_square LRPWSquare WSquareRule": Here("relprop.rules.WSquare()"),
        "lrp.flat LRPFlat FlatRule": Here("relprop.rules.Flat()"),
        "lrp.alpha_beta LRPAlphaBeta AlphaBetaRule": Here('relprop.rules.AlphaBeta(alpha, beta, "absorb")'),
        "AlphaBetaIgnoreBias AlphaBetaIgnoreBiasRule": Here("relprop.rules.AlphaBeta(alpha, beta)"),
        "lrp.alpha_2_beta_1 LRPAlpha2Beta1 Alpha2Beta1Rule": Here('relprop.rules.AlphaBeta(2, 1, "absorb")'),
        "lrp.alpha_2_beta_1_IB LRPAlpha2Beta1IgnoreBias Alpha2Beta1IgnoreBias": Here(
            "relprop.rules.AlphaBeta(2, 1)"
        ),
        "lrp.alpha_1_beta_0 LRPAlpha1Beta0 Alpha1Beta0Rule": Here('relprop.rules.ZPlus("absorb")'),
        "lrp.alpha_1_beta_0_IB LRPAlpha1Beta0IgnoreBias Alpha1Beta0IgnoreBias": Here("relprop.rules.ZPlus()"),
        "lrp.z_plus LRPZPlus ZPlusRule": Here("relprop.rules.ZPlus()"),
        "lrp.z_plus_fast LRPZPlusFast ZPlusFast ZPlusFastRule": Here("relprop.rules.ZPlus()"),
        "Bounded BoundedRule": Here("relprop.rules.ZBox(low, high)"),
        "lrp.sequential_preset_a LRPSequentialPresetA": Here(
            'rules="epsilon-plus"', "innvestigate's ε is 0.1"
        ),
        "lrp.sequential_preset_b LRPSequentialPresetB": Here(
            'rules="epsilon-alpha2-beta1"', "innvestigate's ε is 0.1"
        ),
        "lrp.sequential_preset_a_flat LRPSequentialPresetAFlat": Here(
            'rules="epsilon-plus-flat"', "innvestigate's ε is 0.1"
        ),
        "lrp.sequential_preset_b_flat LRPSequentialPresetBFlat": Here(
            'rules="epsilon-alpha2-beta1-flat"', "innvestigate's ε is 0.1"
        ),
        "lrp.sequential_preset_b_flat_until_idx LRPSequentialPresetBFlatUntilIdx": Here(
            "rules=[(relprop.places.Depth(0, 3), relprop.rules.Flat()), "
            '(relprop.places.Kind("convolution"), relprop.rules.AlphaBeta(2, 1, "absorb")), '
            '("*", relprop.rules.Epsilon(0.1))]',
            "Depth counts layers with weights from the input on",
        ),
        "deep_taylor DeepTaylor": Here(
            'rules="deep-taylor", bounds=(low, high)',
            "as deep_taylor.bounded; without bounds rules=relprop.rules.ZPlus() is nearest",
        ),
        "deep_taylor.bounded BoundedDeepTaylor": Here(
            'rules="deep-taylor", bounds=(low, high)',
            "innvestigate has w² for layers without a ReLU, such as the last",
        ),
        "input_t_gradient InputTimesGradient": Here('rules="gradient-times-input"'),
        "model_wo_softmax": Here("", _SOFTMAX),
    },
    arguments={
        "neuron_selection neuron_selection_mode": Here("target=", "without it each sample's largest output"),
        "input_layer_rule": Here(
            'rules=[(relprop.places.First(), relprop.rules.Flat()), ("*", relprop.rules.Epsilon())]'
        ),
        "until_layer_idx until_layer_rule": Here(
            'rules=[(relprop.places.Depth(0, 3), relprop.rules.Flat()), ("*", relprop.rules.Epsilon())]'
        ),
        "bn_layer_rule bn_layer_fuse_mode": Here("", _FOLDED),
        "allow_lambda_layers disable_model_checks": Here("", "any function of tensors is explained"),
        "reverse_keep_tensors": Here("record=", "modules whose output's relevance is kept"),
        "epsilon": Here("rules=relprop.rules.Epsilon(epsilon)"),
        "alpha beta": Here("rules=relprop.rules.AlphaBeta(alpha, beta)"),
        "low high": Here("bounds=(low, high)"),
        "model_wo_softmax": Here("", _SOFTMAX),
    },
)

LXT = Library(
    names={
        "monkey_patch attnLRP": Here('rules="attnlrp"', _ATTENTION),
        "cp_LRP": Here('rules="cp-lrp"', "nothing is patched"),
        "monkey_patch_zennit": Here(
            'rules="attnlrp-vit"', "γ rules of one's own are a list of (where, rule)"
        ),
        "EpsilonRule": Here("relprop.rules.Epsilon(1e-8)"),
        "LinearEpsilon linear_epsilon": Here("relprop.rules.Epsilon(1e-6)"),
        "UniformRule mul2": Here("relprop.rules.Uniform()", _PRODUCTS),
        "UniformEpsilonRule": Here("relprop.rules.Uniform()", "for products, those of matrices among them"),
        "StopRelevanceRule stop_gradient": Here(
            "relprop.rules.SignalTakesAll()", "for products: a gate gets nothing"
        ),
        "MultiheadAttention_CP": Here('rules="cp-lrp"', "nothing is replaced"),
        "IdentityRule identity identity_rule_implicit": Here("", _PASSED),
        "divide_gradient": Here("relprop.rules.Uniform()", _PRODUCTS),
        "RMSNormIdentity LayerNormEpsilon rms_norm_identity": Here(
            "", "the statistics of a normalisation are constants without a rule"
        ),
        "SoftmaxDT": Here("", "a softmax is crossed by its Taylor expansion without a rule"),
        "add2": Here("", _TERMS),
        "TaylorDecompositionRule": Here("relprop.rules.Rule", _OWN_RULE),
        "Composite": Here('relprop.Composite([("*", relprop.rules.Epsilon())])', "a list of (where, rule)"),
    },
    arguments={
        "monkey_patch patch_map efficient": Here('rules="attnlrp"', _ATTENTION),
        "dummy_inputs": Here("", "calls are seen while the model runs, and nothing is traced before"),
        "zennit_composite": Here("rules="),
    },
)

LITERATURE = Library(
    names={
        "LRP-0 LRP-z": Here("relprop.rules.Epsilon(0)"),
        "LRP-ε ε epsilon-rule": Here("relprop.rules.Epsilon(1e-6)"),
        "LRP-γ γ gamma-rule": Here("relprop.rules.Gamma(0.25)"),
        "LRP-αβ αβ": Here("relprop.rules.AlphaBeta(2, 1)", "α - β is 1"),
        "LRP-α1β0 α1β0 z⁺ LRP-z⁺ z-plus-rule": Here("relprop.rules.ZPlus()"),
        "LRP-α2β1": Here("relprop.rules.AlphaBeta(2, 1)"),
        "zᴮ LRP-zᴮ z-box z-box-rule": Here(
            "relprop.rules.ZBox(low, high)", "for the first layer, [(First(), ZBox(low, high)), ...]"
        ),
        "w² LRP-w² w-square-rule": Here(
            "relprop.rules.WSquare()", "for the first layer, [(First(), WSquare()), ...]"
        ),
        "flat flat-rule": Here("relprop.rules.Flat()", "for the first layer, [(First(), Flat()), ...]"),
        "AttnLRP": Here('rules="attnlrp"'),
        "CP-LRP": Here('rules="cp-lrp"'),
        "gradient saliency": Here(
            'rules="squared-gradient"',
            'the other is rules="gradient-times-input"; the gradient itself is torch.autograd.grad\'s',
        ),
        "gradient_x_input input_x_gradient grad_x_input": Here('rules="gradient-times-input"'),
        "guided_backprop GuidedBackprop deconvnet DeconvNet Deconvolution": Here("", _GRADIENTS),
        "integrated_gradients IntegratedGradients SmoothGrad Occlusion": Here("", _MANY_RUNS),
        "DeepLift deep_lift": Here("", "it compares with another input, and is not LRP"),
    },
    arguments={
        "preset method explainer": Here("rules="),
        "class_index label output_index": Here("target=", "a class, or one for each sample"),
    },
    parameters={"eps ε": Here("epsilon="), "γ": Here("gamma="), "lo": Here("low="), "hi": Here("high=")},
)

LIBRARIES: Mapping[str, Library] = MappingProxyType(
    {"zennit": ZENNIT, "captum": CAPTUM, "innvestigate": INNVESTIGATE, "LXT": LXT, "literature": LITERATURE}
)
