#version 450
#extension GL_GOOGLE_include_directive : require
#define UNARY gelu_of(v)
#include "elementwise.glsl"
