#version 450
#extension GL_GOOGLE_include_directive : require
#define UNARY (-exp(v))
#include "elementwise.glsl"
